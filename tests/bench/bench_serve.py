"""bench_serve: what a request costs: `python -m tests.bench.bench_serve [--users N --items N --top N --trees N --repeats N]`.

Starts a Redis and the ranking service of its own on free ports, with one worker and a synthetic snapshot. Closed loop finds
the peak (the best of several numbers of callers); open loop at half of it gives the latencies, from the moment each request
was due. model_only_ratio: requests a second of the service's processor time at the peak, over calls a second of its ranker's
alone; default_bentoml_ratio: the peak over that of the same service under BentoML's defaults, in turns with it. fetch_decode_ms is
the service's reader by itself, with several callers at a time: one round trip to Redis and the decoding of the record. What the
same costs as a stage of those answers, where it waits for the event loop and the cores beside everything else, stands among the
controls (stage_retrieval_ms). Every figure is the median of the repeats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

import numpy as np
import xgboost

from infra.catalog.features.ranking import RANKER_FEATURES
from infra.config import console
from infra.config.settings import CHECKOUT
from tests.bench.fetch import CALLERS, fetch
from tests.bench.helping import Help
from tests.bench.load import LoadReport
from tests.bench.report import Report
from tests.bench.serve_rivals import cpu_s, default_serving, model_calls_per_core_s
from tests.fixtures import tiny_snapshot
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.service import Served, Stage, serving

_CALLERS = (2, 4, 8, 16)

DEGRADED_LIMIT_FRACTION = 0.001
"""A tenth of what p99 leaves out."""


_OPTIONS: dict[str, tuple[int, str]] = {
    "users": (2000, "users of the snapshot, each asked for in turn"),
    "items": (20_000, "items of the snapshot"),
    "top": (1000, "candidates a user, all of them ranked"),
    "trees": (300, "trees of the ranker, each of depth 6"),
    "repeats": (3, "how often everything is measured; a figure is the median"),
    "seconds": (15, "how long each open loop lasts, at half of the peak; a closed one lasts a third"),
    "n": (20, "items of a list"),
}
"""Each with its default, and what it is."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    for name, (value, told) in _OPTIONS.items():
        parser.add_argument(f"--{name}", type=int, default=value, help=told)
    chosen = parser.parse_args()
    report = Report("serve")
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder), chosen) as served,
        default_serving(served.stage, folder=Path(folder)) as default,
    ):
        bodies = Path(folder) / "bodies.jsonl"
        write_bodies(bodies, users=chosen.users, n=chosen.n)
        for either in (served, default):
            load(either, bodies, connections=8, seconds=3)
        model, short_s = ranker(chosen.trees), max(3, chosen.seconds // 3)
        peaks, default_peaks, model_per_core_s = [], [], []
        with report.watching():
            for _ in range(chosen.repeats):
                peaks.append(peak(served, bodies, seconds=short_s))
                default_peaks.append(peak(default, bodies, seconds=short_s))
                model_per_core_s.append(model_calls_per_core_s(model, rows=chosen.top, seconds=2))
            peak_per_s = statistics.median(found.per_s for found in peaks)
            halves = [
                load(served, bodies, connections=128, seconds=chosen.seconds, per_s=peak_per_s / 2, seed=seed)
                for seed in range(chosen.repeats)
            ]
            alone = load(served, bodies, connections=1, seconds=3)
            fetches = [
                fetch(
                    served.stage.root,
                    served.stage.redis_url,
                    users=chosen.users,
                    top=chosen.top,
                    seconds=short_s,
                )
                for _ in range(chosen.repeats)
            ]
    whole_or_raise(halves)
    report.figures |= {
        "fetch_decode_ms_p99": median(fetched.p99_ms for fetched in fetches),
        "recommend_p99_ms_half_load": median(half.latency_ms["p99"] for half in halves),
        "model_only_ratio": median(
            found.per_core_s / calls for found, calls in zip(peaks, model_per_core_s, strict=True)
        ),
        "p99_vs_single_ratio": median(half.latency_ms["p99"] / alone.latency_ms["p50"] for half in halves),
        "default_bentoml_ratio": median(
            ours.per_s / theirs.per_s for ours, theirs in zip(peaks, default_peaks, strict=True)
        ),
    }
    stages = halves[0].stage_ms_p50
    report.controls |= {
        "peak_per_s": round(peak_per_s, 1),
        "peak_per_core_s": median(found.per_core_s for found in peaks),
        "model_only_per_core_s": median(model_per_core_s),
        "default_bentoml_peak_per_s": median(found.per_s for found in default_peaks),
        "half_load_per_s": round(peak_per_s / 2, 1),
        "recommend_p50_ms_half_load": median(half.latency_ms["p50"] for half in halves),
        "recommend_p50_ms_alone": alone.latency_ms["p50"],
        "recommend_p99_ms_alone": alone.latency_ms["p99"],
        "fetch_decode_ms_p50": median(fetched.p50_ms for fetched in fetches),
        "fetch_decode_per_s": median(fetched.per_s for fetched in fetches),
        "fetch_decode_callers": CALLERS,
        "stage_retrieval_ms_p99": median(half.stage_ms_p99["retrieval"] for half in halves),
        "stage_retrieval_ms_p99_alone": alone.stage_ms_p99["retrieval"],
        "generator_late_ms_p99": median(half.late_sends_ms_p99 for half in halves),
        **{f"stage_{stage}_ms_p50": taken for stage, taken in stages.items()},
        **{name: getattr(chosen, name) for name in _OPTIONS},
        "degraded_answers": sum(half.degraded for half in halves),
        "workers": 1,
    }
    path = report.write()
    console.result({"path": str(path), "valid": report.valid, **report.figures, **report.controls})


def whole_or_raise(runs: list[LoadReport]) -> None:
    """Raise where answers failed, or too many took a fallback: their latencies are not those of the whole cascade."""
    sent, failed, degraded = (
        sum(counts) for counts in zip(*((r.sent, r.failed, r.degraded) for r in runs), strict=True)
    )
    if failed or degraded > DEGRADED_LIMIT_FRACTION * sent:
        raise RuntimeError(
            f"Of {sent} answers {failed} failed and {degraded} were degraded; wanted 0 and at most "
            f"{DEGRADED_LIMIT_FRACTION:.1%}. Is the machine busy? Repeat it on a quiet one."
        )


def median(values: Iterable[float]) -> float:
    """The median over the repeats, as it is written down."""
    return round(statistics.median(values), 3)


@contextmanager
def service(folder: Path, chosen: argparse.Namespace) -> Iterator[Served]:
    """Redis, a live snapshot and the service over it."""
    world = tiny_snapshot.tiny_world(users=chosen.users, items=chosen.items)
    redis = RedisProcess(folder)
    redis.start()
    try:
        stage = Stage(folder / "store", redis.url)
        with patch.object(tiny_snapshot, "tiny_ranker", lambda *, trees: ranker(chosen.trees)):
            stage.flip_live(world=world, k=chosen.top)
        with serving(stage, folder=folder, environment={"HEADGATE_SERVICE_WORKERS": "1"}) as served:
            served.wait_ready()
            yield served
    finally:
        redis.stop()


def ranker(trees: int) -> bytes:
    """A rank:ndcg booster with full trees of depth 6, as UBJSON."""
    rng = np.random.default_rng(4)
    x = rng.random((20_000, len(RANKER_FEATURES)), np.float32)
    y = rng.integers(0, 3, len(x))
    data = xgboost.DMatrix(x, label=y, qid=np.repeat(np.arange(200), 100), feature_names=list(RANKER_FEATURES))
    booster = xgboost.train({"objective": "rank:ndcg", "max_depth": 6, "seed": 5}, data, trees)
    return bytes(booster.save_raw("ubj"))


def write_bodies(path: Path, *, users: int, n: int) -> None:
    """One request a user."""
    path.write_text("".join(json.dumps({"user_id": f"u{user}", "n": n}) + "\n" for user in range(users)))


@dataclass(frozen=True, slots=True)
class Peak:
    """per_s: whole answers a second; per_core_s: the same a second of the service's processor time."""

    per_s: float
    per_core_s: float


def peak(served: Served, bodies: Path, *, seconds: float) -> Peak:
    """The most that any number of callers gets; a fallback is no answer here, for it costs next to nothing."""
    found = []
    for callers in _CALLERS:
        before_s = cpu_s(served.pid)
        seen = load(served, bodies, connections=callers, seconds=seconds)
        whole = seen.sent - seen.failed - seen.degraded
        per_s = seen.per_s * whole / max(1, seen.sent - seen.failed)
        found.append(Peak(per_s, whole / (cpu_s(served.pid) - before_s)))
    return max(found, key=lambda one: one.per_s)


def load(
    served: Served, bodies: Path, *, connections: int, seconds: float, per_s: float = 0.0, seed: int = 1
) -> LoadReport:
    """One run of the generator in a process of its own."""
    port = urlsplit(served.url).port
    options = {
        "port": port,
        "bodies": bodies,
        "connections": connections,
        "seconds": seconds,
        "per-s": per_s,
        "seed": seed,
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "tests.bench.load", *arguments]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    console.say(
        f"{'open' if per_s else 'closed'} loop, {connections} connections, {seconds:.0f} s: {done.stdout.strip()}"
    )
    return LoadReport(**json.loads(done.stdout))


if __name__ == "__main__":
    main()
