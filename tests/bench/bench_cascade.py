"""bench_cascade: what the cascade's engine costs and keeps: `python -m tests.bench.bench_cascade [--parts NAME ...]`.

batching: native calls of concurrent callers, each by itself and shared, per model, against concurrency; the modes take turns within
one run. overshoot: how much later than its budget a request is freed from a native call that takes longer, idle and under load.
quality: NDCG@10 after each of the feed's scorers, for what users did after the moment of a snapshot; see cascade_quality.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from infra.config import console
from tests.bench import cascade_batching, cascade_overshoot, cascade_worlds
from tests.bench.helping import Help
from tests.bench.report import Report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--repeats", type=int, default=9, help="turns of each mode of batching")
    parser.add_argument("--slice-s", type=float, default=0.3, help="of one mode, before the next takes its turn")
    parser.add_argument("--overshoot-s", type=float, default=30.0, help="under load; idle as many as in 20 a second")
    for name, default in (("users", 20_000), ("items", 20_000), ("events", 1_000_000), ("moments", 3_000)):
        parser.add_argument(f"--{name}", type=int, default=default, help="of the world that quality is judged on")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="what is measured")
    chosen = parser.parse_args()
    report = Report("cascade")
    for name in chosen.parts:
        console.say(f"cascade: {name}")
        if name == "quality":  # none of its figures is a time, so that a busy machine spoils none
            PARTS[name](report, chosen)
            continue
        with report.watching():
            PARTS[name](report, chosen)
    path = report.write()
    console.result({"path": str(path), "valid": report.valid, **report.figures})


PARTS: dict[str, Callable[[Report, argparse.Namespace], None]] = {
    "batching": cascade_batching.measure,
    "overshoot": cascade_overshoot.measure,
    "quality": cascade_worlds.measure,
}


if __name__ == "__main__":
    main()
