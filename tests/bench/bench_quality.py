"""bench_quality: what retrieval finds: `python -m tests.bench.bench_quality [--gowalla FOLDER --users N --items N --events N]`.

On Gowalla's check-ins (train.parquet fitted, valid.parquet judged; the published test part is not looked at) and on a generated
world whose true tastes are known (the last week is held back). The lists are those of the batch side itself: its embedders, its
exact search, items taken before left out. Beside them popularity, and for the world the oracle: the ranking by the true tastes
at the moment of the snapshot, which nobody who sees only events can beat by more than chance.

No figure is a time, so a busy machine spoils none; it is watched all the same, so that the page states the load as it was.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from infra.catalog.applications.ranking import RANKING
from infra.config import console
from infra.config.settings import CHECKOUT, settings
from infra.local.world.generate import generate
from infra.local.world.oracle import Oracle
from infra.local.world.size import WorldSize
from spark_jobs.embeddings.fit import Algorithm
from spark_jobs.session import running
from tests.bench.quality import Pairs, Quality, best_unseen, by_embedding, by_popularity, distinct, judge, without
from tests.bench.report import Report

GOWALLA = CHECKOUT.parent / "shared" / "data" / "gowalla"
HELD_BACK = timedelta(days=7)
ORACLE_USERS = 2000
"""The world's lists are judged on this many of its users: the oracle scores all items for each."""

_CHUNK = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gowalla", type=Path, default=GOWALLA)
    for name, default in (("users", 20_000), ("items", 20_000), ("events", 1_000_000), ("seed", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    size = WorldSize(users=chosen.users, items=chosen.items, events=chosen.events, seed=chosen.seed)
    report = Report("quality", timed=False)
    with running("bench quality") as spark, report.watching():
        if (chosen.gowalla / "train.parquet").exists():
            on_gowalla(spark, report, chosen.gowalla)
        else:
            console.say(
                f"Gowalla is skipped: there is no {chosen.gowalla}/train.parquet. Name a folder with --gowalla."
            )
        on_world(spark, report, size)
    path = report.write()
    console.result({"path": str(path), "valid": report.valid, **report.figures, **report.controls})


def embedders() -> list[tuple[str, Algorithm, int]]:
    """What is compared: the embedder that ships, a wider one, and ALS."""
    shipped = settings().embedding_dim
    return [(f"spectral_{shipped}", "spectral", shipped), ("spectral_256", "spectral", 256), ("als_64", "als", 64)]


def on_gowalla(spark: SparkSession, report: Report, folder: Path) -> None:
    """Fit on train, judge on valid, all users who have something there."""
    train, valid = (pq.read_table(folder / f"{name}.parquet") for name in ("train", "valid"))
    user_ids, item_ids = (pc.unique(train[name].combine_chunks()) for name in ("user_id", "item_id"))
    past, later = (_pairs(table, user_ids, item_ids) for table in (train, valid))
    users = np.unique(later.users)
    note(report, "gowalla_popularity", judge(by_popularity(past, users), later.matrix, users))
    for name, algorithm, dim in embedders():
        lists = by_embedding(spark, past, algorithm=algorithm, dim=dim, seed=settings().random_seed)
        note(report, f"gowalla_{name}", judge(lists[users], later.matrix, users))
    report.controls |= {"gowalla_pairs": len(past.users), "gowalla_held_back": len(later.users)}
    report.controls |= {"gowalla_users": past.n_users, "gowalla_items": past.n_items}


def on_world(spark: SparkSession, report: Report, size: WorldSize) -> None:
    """Fit on all but the last week of a generated world, judge on what its users took in that week for the first time."""
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder) / "world"
        generate(size, world)
        as_of = size.start + timedelta(days=size.days) - HELD_BACK
        past, later = world_pairs(world, as_of_us=round(as_of.timestamp() * 1e6))
        known = np.intersect1d(np.unique(later.users), np.unique(past.users))
        users = np.sort(size.rng(99).permutation(known)[:ORACLE_USERS]).astype(np.int32)
        oracle, seen = Oracle.open(world), past.matrix
        user_ids = pq.read_table(world / "users.parquet", columns=["user_id"])["user_id"].to_numpy()
        chunks = [users[low : low + _CHUNK] for low in range(0, len(users), _CHUNK)]
        true = [best_unseen(oracle.matrix(user_ids[chunk].tolist(), as_of), seen[chunk]) for chunk in chunks]
        note(report, "world_oracle", judge(np.concatenate(true), later.matrix, users))
        note(report, "world_popularity", judge(by_popularity(past, users), later.matrix, users))
        for name, algorithm, dim in embedders():
            lists = by_embedding(spark, past, algorithm=algorithm, dim=dim, seed=settings().random_seed)
            note(report, f"world_{name}", judge(lists[users], later.matrix, users))
    report.controls |= {"world_users": size.users, "world_items": size.items, "world_events": size.events}
    report.controls |= {"world_judged_users": len(users), "world_pairs": len(past.users)}


def world_pairs(world: Path, *, as_of_us: int) -> tuple[Pairs, Pairs]:
    """Who consumed what up to a moment, and who what after it for the first time."""
    items = pq.read_table(world / "items.parquet", columns=["item_id"])["item_id"].combine_chunks()
    users = pq.read_table(world / "users.parquet", columns=["user_id"])["user_id"].combine_chunks()
    events = pa.concat_tables([pq.read_table(file) for file in sorted((world / "events").iterdir())])
    ignored = [name for name, gain in RANKING.event_gain.items() if gain == 0]
    events = events.filter(pc.invert(pc.is_in(events["event_type"], pa.array(ignored, pa.string()))))
    before = pc.less_equal(events["event_time"].cast(pa.int64()), as_of_us)
    past, later = (_pairs(events.filter(part), users, items) for part in (before, pc.invert(before)))
    return past, without(later, past)


def _pairs(table: pa.Table, user_ids: pa.Array, item_ids: pa.Array) -> Pairs:
    """Rows as positions among the ids; those of an unknown user or item are left out."""
    users, items = (
        pc.index_in(table[name].combine_chunks(), ids).fill_null(-1).to_numpy()
        for name, ids in (("user_id", user_ids), ("item_id", item_ids))
    )
    known = (users >= 0) & (items >= 0)
    return distinct(users[known], items[known], n_users=len(user_ids), n_items=len(item_ids))


def note(report: Report, name: str, quality: Quality) -> None:
    """The three figures of one method."""
    for metric, value in asdict(quality).items():
        report.figures[f"{name}_{metric}"] = value
    console.say(f"{name}: {quality}")


if __name__ == "__main__":
    main()
