"""bench_snapshots: what flips, loads and rollbacks cost: `python -m tests.bench.bench_snapshots [--flips N --no-airflow ...]`.

Four parts, each with a Redis of its own. Flips one after the other, with processes that read at a set rate: how long the script
takes inside Redis by SLOWLOG, how soon each reader serves the new version. Flips and rollbacks as fast as they go under as many
reads as there can be: torn and missing ones; then the same twice broken on purpose, until that is found. A large version loaded
and deleted, and what the deletion costs readers. Rollbacks by Airflow's REST API on a real stack, alone and during a build.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import redis

from infra.config import console
from infra.contracts.snapshots import State
from infra.snapshots import keys
from infra.snapshots.promotion import Promotion
from infra.snapshots.versions import SnapshotStore, Version
from tests.bench.airflow_rollbacks import stack
from tests.bench.report import Report
from tests.fixtures.marked_snapshot import Shape, write_marked_snapshot
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.tiny_snapshot import RANKING
from tests.proof.readers import Readers
from tests.proof.torture import Delete, Torture, collect, delete_at_once, total

_PACED_PER_S = 200.0
"""Requests a second of each paced reader: well below what Redis and two cores can do, so that it is the deletion that is seen."""

_FLIP_EVERY_S = 0.1
_LEASE_S = 10.0
_QUIET_S = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {
        "users": 100_000,
        "top": 1000,
        "flips": 1000,
        "reads": 1_000_000,
        "timed-flips": 300,
        "readers": 2,
        "repeats": 5,
        "rollbacks": 30,
        "world-users": 20_000,
    }
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument(
        "--airflow", action=argparse.BooleanOptionalAction, default=True, help="measure by REST as well"
    )
    chosen = parser.parse_args()
    report = Report("snapshots")
    with report.watching():
        flips(report, chosen)
        torture(report, chosen)
        large(report, chosen)
        if chosen.airflow:
            rollbacks(report, chosen)
    report.controls |= {name.replace("-", "_"): getattr(chosen, name.replace("-", "_")) for name in defaults}
    path = report.write()
    console.result({"path": str(path), "valid": report.valid, **report.figures, **report.controls})


@contextmanager
def place() -> Iterator[tuple[Path, RedisProcess]]:
    """An empty folder and an empty Redis."""
    with tempfile.TemporaryDirectory(prefix="headgate-bench-") as folder:
        server = RedisProcess(Path(folder))
        server.start()
        try:
            yield Path(folder), server
        finally:
            server.stop()


def flips(report: Report, chosen: argparse.Namespace) -> None:
    """Flips, ten a second at most, while processes read at a set rate."""
    with place() as (folder, server), redis.Redis.from_url(server.url) as client:
        run = Torture(folder, server.url)
        run.prepare()
        client.config_set("slowlog-max-len", 1_000_000)
        readers = Readers(
            folder, str(folder / "store"), server.url, 24, chosen.readers, lease_s=_LEASE_S, per_s=_PACED_PER_S
        )
        called_s: dict[int, float] = {}
        with readers.reading():
            client.config_set("slowlog-log-slower-than", 0)
            for _ in range(chosen.timed_flips):
                began_s = time.monotonic()
                run.step()
                called_s[max(run.flipped_s)] = began_s
                time.sleep(max(0.0, began_s + _FLIP_EVERY_S - time.monotonic()))
            client.config_set("slowlog-log-slower-than", -1)
            time.sleep(1.0)
        entries = cast("list[dict[str, object]]", client.slowlog_get(1_000_000))
        switched = [{int(name): at_s for name, at_s in found.switched_s.items()} for found in readers.found]
        run.close()
    script_ms = [int(str(entry["duration"])) / 1000 for entry in entries if _is_flip(cast("bytes", entry["command"]))]
    if len(script_ms) < len(run.flipped_s):
        raise RuntimeError(f"SLOWLOG knows {len(script_ms)} of {len(run.flipped_s)} flips")
    waits = [
        (min(at_s for generation, at_s in seen.items() if generation >= flipped) - returned_s) * 1000
        for flipped, returned_s in run.flipped_s.items()
        for seen in switched
    ]
    whole_ms = [(run.flipped_s[generation] - began_s) * 1000 for generation, began_s in called_s.items()]
    report.figures["flip_server_ms_p99"] = p(script_ms, 99)
    report.figures["readers_switch_ms_p99"] = p([max(wait, 0.0) for wait in waits], 99)
    report.controls |= {
        "flip_server_ms_p50": p(script_ms, 50),
        "flip_whole_ms_p50": p(whole_ms, 50),
        "flip_whole_ms_p99": p(whole_ms, 99),
        "flips_timed": len(script_ms),
    }


def _is_flip(command: bytes) -> bool:
    """Only the script that moves the alias has the channel of flips among its keys."""
    return command.startswith(b"EVAL") and keys.alias_channel(RANKING).encode() in command


def torture(report: Report, chosen: argparse.Namespace) -> None:
    """As many flips and reads as asked for; then the two controls, each until it is found."""
    run, found = _tortured(chosen.readers, lambda run, seen: _count(run) >= chosen.flips and seen >= chosen.reads)
    report.figures |= {
        "flips": _count(run),
        "reads": found["reads"],
        "torn_reads": found["torn"],
        "missing_reads": found["missing"],
    }
    report.controls |= {
        "rollbacks_among_flips": run.rollbacks,
        "copies_deleted": run.deleted,
        "requests_restarted": found["restarted"],
        "lower_generations": found["backwards"],
    }
    for name, what, rereads, delete in (
        ("torn_reads_reread", "torn", True, collect),
        ("missing_reads_no_grace", "missing", False, delete_at_once),
    ):
        _, found = _tortured(chosen.readers, None, what=what, rereads=rereads, delete=delete)
        report.controls[name] = found[what]


def _tortured(
    processes: int,
    done: Callable[[Torture, int], bool] | None,
    *,
    what: str = "reads",
    rereads: bool = False,
    delete: Delete = collect,
) -> tuple[Torture, dict[str, int]]:
    """Until `done` says so of the run and its reads; without it until one of `what` was found."""
    with place() as (folder, server):
        run = Torture(folder, server.url, delete)
        run.prepare()
        with run.readers(processes=processes, rereads=rereads).reading() as readers:
            run.until(lambda run: done(run, total(readers)["reads"]) if done else total(readers)[what] > 0)
        run.close()
        return run, dict(total(readers))


def _count(run: Torture) -> int:
    return run.flips + run.rollbacks


def large(report: Report, chosen: argparse.Namespace) -> None:
    """Load a large version, and delete it while another as large is read."""
    shape = Shape(users=chosen.users, k=chosen.top, files=8, older_every=50)
    with place() as (folder, server), redis.Redis.from_url(server.url) as client:
        promotion = Promotion(SnapshotStore(str(folder / "store"), RANKING), client)
        old, live = (_validated(promotion, shape) for _ in range(2))
        per_s = [_loaded_per_s(promotion, live, again=at > 0) for at in range(chosen.repeats)]
        promotion.flip(live, actor="bench", reason="bench", force=True)
        windows: dict[str, list[tuple[float, float]]] = {"quiet": [], "gc": []}
        readers = Readers(
            folder,
            str(folder / "store"),
            server.url,
            chosen.users,
            chosen.readers,
            lease_s=_LEASE_S,
            per_s=_PACED_PER_S,
        )
        with readers.reading():
            for _ in range(2 * chosen.repeats):
                promotion.load(old, limit_fraction=1.0)
                time.sleep(1.0)
                windows["quiet"].append(_window(lambda: time.sleep(_QUIET_S)))
                windows["gc"].append(_window(lambda: promotion.collect(keep=2)))
                if promotion.loaded() != [live.version]:
                    raise RuntimeError(f"{old.version} was not collected: {promotion.loaded()}")
        seen = {name: _latencies(readers, spans) for name, spans in windows.items()}
    report.figures["load_users_per_s"] = round(statistics.median(per_s))
    report.figures["gc_read_p99_ratio"] = round(p(seen["gc"], 99) / p(seen["quiet"], 99), 3)
    report.controls |= {
        "read_ms_p99_quiet": p(seen["quiet"], 99),
        "read_ms_p99_gc": p(seen["gc"], 99),
        "reads_timed_gc": len(seen["gc"]),
        "gc_s": round(statistics.median(end - begin for begin, end in windows["gc"]), 3),
    }


def _validated(promotion: Promotion, shape: Shape) -> Version:
    version = write_marked_snapshot(promotion.store, generation=0, shape=shape)
    version.record(State.VALIDATED, actor="bench", reason="bench")
    return version


def _loaded_per_s(promotion: Promotion, version: Version, *, again: bool) -> float:
    """Users a second of one load into a Redis that has none of it."""
    if again:
        promotion.copy_of(version).delete()
    done = promotion.load(version, limit_fraction=1.0)
    console.say(f"{done.users:,} users loaded in {done.seconds:.2f} s")
    return done.users / done.seconds


def _window(action: Callable[[], object]) -> tuple[float, float]:
    began_s = time.monotonic()
    action()
    return began_s, time.monotonic()


def _latencies(readers: Readers, spans: list[tuple[float, float]]) -> list[float]:
    """Milliseconds of all requests that were due in one of those spans."""
    return [
        taken_ms
        for found in readers.found
        for due_s, taken_ms in found.latency
        if any(begin <= due_s < end for begin, end in spans)
    ]


def rollbacks(report: Report, chosen: argparse.Namespace) -> None:
    """By Airflow's REST API, on a real stack."""
    with (
        tempfile.TemporaryDirectory(prefix="headgate-bench-") as folder,
        stack(Path(folder), users=chosen.world_users) as run,
    ):
        run.prepare()
        quiet = run.quiet(chosen.rollbacks)
        busy = run.mid_build(chosen.rollbacks)
    report.figures["rollback_rest_s_p95"] = p(quiet, 95)
    report.figures["rollback_rest_mid_build_s_p95"] = p(busy, 95)
    report.controls |= {
        "rollback_rest_s_p50": p(quiet, 50),
        "rollback_rest_mid_build_s_p50": p(busy, 50),
        "rollbacks_timed": len(quiet) + len(busy),
        "builds_fenced": run.fenced,
    }


def p(values: list[float], percent: float) -> float:
    """That percentile, as it is written down."""
    return round(float(np.percentile(values, percent)), 3)


if __name__ == "__main__":
    main()
