"""cascade_worlds: the data that the cascade's stages are judged on: a generated world, and a year of Yelp's reviews."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bentos.ranking.content import LIGHT, NETWORK
from bentos.ranking.trees import RankerScorer
from infra.config import console
from infra.config.settings import CHECKOUT
from infra.local.world.generate import generate
from infra.local.world.size import WorldSize
from infra.snapshots.versions import Version
from tests.bench.cascade_quality import Steps, gain, judge
from tests.bench.held_out import Later, Moment, build, moments, split, world_events
from tests.bench.report import Report

YELP = CHECKOUT.parent / "shared" / "data" / "yelp-2019"

_REMEMBERED = timedelta(days=7)
"""How long before the cut the stream's memory of a user begins: the longest window of a user's features."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A snapshot that knows nothing after the cut, and what its users did then. store: where it lies."""

    version: Version
    store: str
    later: Later
    asked: Sequence[Moment]


def world(folder: Path, size: WorldSize, *, most: int) -> HeldOut:
    """A generated world, its last day held back. most: moments."""
    generate(size, folder / "world")
    source = folder / "past"
    source.mkdir()
    for name in ("items", "users"):
        shutil.copy(folder / f"world/{name}.parquet", source / f"{name}.parquet")
    cut = size.start + timedelta(days=size.days - 1)
    events = world_events(folder / "world")
    return _held_out(folder, source, events, cut=cut, until=cut + timedelta(days=1), most=most, seed=size.seed)


def yelp(folder: Path, *, days: int = 30, most: int) -> HeldOut:
    """Reviews of 2019 with the businesses' categories as genres, the last days of what is there held back."""
    source = folder / "past"
    source.mkdir(parents=True)
    found = pq.read_table(YELP / "events.parquet")
    seconds = found["timestamp"].cast(pa.int64())
    events = pa.table(
        {
            "user_id": found["user_id"].cast(pa.string()),
            "item_id": found["item_id"].cast(pa.string()),
            "event_time": pc.multiply(seconds, 1_000_000).cast(pa.timestamp("us", "UTC")),
            "event_type": pa.array(["rating"] * found.num_rows),
        }
    )
    _write_categories(source)
    end = datetime.fromtimestamp(int(pc.max(seconds).as_py()) + 1, UTC)
    return _held_out(folder, source, events, cut=end - timedelta(days=days), until=end, most=most, seed=7)


def _held_out(
    folder: Path, source: Path, events: pa.Table, *, cut: datetime, until: datetime, most: int, seed: int
) -> HeldOut:
    past, _ = split(events, cut=cut)
    _, remembered = split(events, cut=cut - _REMEMBERED)
    (source / "events").mkdir()
    pq.write_table(past, source / "events/all.parquet")
    version = build(source, folder, options=["--format", "parquet"])
    known = set(pc.unique(past["user_id"]).to_pylist())
    users = sorted(known & set(pc.unique(split(events, cut=cut)[1]["user_id"]).to_pylist()))
    later = Later.of(remembered)
    cut_us, until_us = (round(moment.timestamp() * 1_000_000) for moment in (cut, until))
    asked = moments(later, cut_us=cut_us, until_us=until_us, users=users, seed=seed)
    step = max(1, len(asked) // most)
    return HeldOut(version, str(folder / "store"), later, asked[::step][:most])


def _write_categories(source: Path) -> None:
    """items.parquet: item_id, title (there is none: the id), genres split by |."""
    pairs = pq.read_table(YELP / "item_categories.parquet")
    names: dict[int, list[str]] = {}
    for item, category in zip(pairs["item_id"].to_pylist(), pairs["category_id"].to_pylist(), strict=True):
        names.setdefault(item, []).append(f"category {category}")
    items = sorted(names)
    table = pa.table(
        {
            "item_id": pa.array([str(item) for item in items]),
            "title": pa.array([str(item) for item in items]),
            "genres": pa.array(["|".join(names[item]) for item in items]),
        }
    )
    pq.write_table(table, source / "items.parquet")


def measure(report: Report, chosen: argparse.Namespace) -> None:
    """NDCG@10 after each stage, and what leaving early loses, on the world; and on Yelp where it is there. None of it is a time."""
    size = WorldSize(users=chosen.users, items=chosen.items, events=chosen.events, seed=7)
    with tempfile.TemporaryDirectory() as folder:
        held = world(Path(folder), size, most=chosen.moments)
        _note(report, held, prefix="")
    report.controls |= {"world_users": size.users, "world_items": size.items, "world_events": size.events}
    if not (YELP / "events.parquet").exists():
        console.say(f"Yelp is skipped: there is no {YELP}/events.parquet.")
        return
    with tempfile.TemporaryDirectory() as folder:
        _note(report, yelp(Path(folder), most=chosen.moments), prefix="yelp_")


_STAGES = {LIGHT: "light", RankerScorer.name: "trees", NETWORK: "network"}


def _note(report: Report, held: HeldOut, *, prefix: str) -> None:
    whole = judge(held.version, held.later, held.asked, store=held.store, wired=_never_settled)
    early = judge(held.version, held.later, held.asked, store=held.store)
    before = "sources"
    report.controls[f"{prefix}ndcg10_after_sources"] = whole.mean(before)
    for stage, name in _STAGES.items():
        if stage not in whole.ndcg:
            continue
        report.figures[f"{prefix}ndcg10_after_{name}"] = whole.mean(stage)
        mean, low, high = whole.gain(stage, before)
        report.controls[f"{prefix}{name}_gain"] = round(mean, 4)
        report.controls[f"{prefix}{name}_gain_low95"] = round(low, 4)
        report.controls[f"{prefix}{name}_gain_high95"] = round(high, 4)
        before = stage
    report.figures[f"{prefix}light_stage_share_settled_fraction"] = round(float(early.settled.mean()), 4)
    lost, low, high = gain(whole.ndcg["shown"], early.ndcg["shown"])
    report.controls[f"{prefix}early_exit_ndcg10_lost"] = round(lost, 5)
    report.controls[f"{prefix}early_exit_ndcg10_lost_high95"] = round(high, 5)
    report.controls[f"{prefix}moments"] = len(held.asked)
    stages = held.version.manifest().stages
    console.say(f"{prefix or 'world '}{stages}: {[(stage, whole.mean(stage)) for stage in whole.ndcg]}")


def _never_settled(steps: Steps) -> Steps:
    return [replace(step, settles=None) for step in steps]
