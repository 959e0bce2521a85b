"""bench_nearline: how fast events are counted and how soon they are felt: `python -m tests.bench.bench_nearline [--parts NAME]`.

throughput: append a log full, drain it, each repeat with a Redis of its own; ratios are of the same repeat. scaling: one worker and
two on one Redis, and on a Redis Cluster of two nodes. freshness: 5,000 events a second, open loop, each timed from when it was
due until its shard's counted offset has passed it. ranking: a click by HTTP until a list by HTTP has changed for it. spark: the
same freshness through Kafka, of the worker and of Spark. kills: SIGKILL, again and again, of either. replays: answers made again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import httpx
import numpy as np

from infra.config import console
from infra.config.settings import CHECKOUT
from tests.bench import nearline_proofs as proofs
from tests.bench import nearline_rig as rig
from tests.bench.report import Report
from tests.fixtures.service import Stage, serving


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--per-second", type=int, default=5_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--clicks", type=int, default=300)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--answers", type=int, default=1_000)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    chosen = parser.parse_args()
    report = Report("nearline")
    with report.watching():
        for name in chosen.parts:
            console.say(f"nearline: {name}")
            PARTS[name](report, chosen)
    path = report.write()
    console.result({"path": str(path), "valid": report.valid, **report.figures, **report.controls})


def throughput(report: Report, chosen: argparse.Namespace) -> None:
    """One worker process against the log's own appends."""
    append, worker = [], []
    for repeat in range(chosen.repeats):
        with rig.place() as (folder, (server,)):
            append.append(rig.fill(server.url, chosen.events, seed=repeat))
            worker.append(rig.drained(server, 1, folder, events=chosen.events).events_per_s)
    report.figures["worker_vs_append_ratio"] = statistics.median(w / a for w, a in zip(worker, append, strict=True))
    report.figures["worker_events_per_s"] = statistics.median(worker)
    report.controls["append_events_per_s"] = statistics.median(append)


def scaling(report: Report, chosen: argparse.Namespace) -> None:
    """Two workers against one, in turn, each on a log of its own; then the same on a cluster."""
    seen: dict[str, list[rig.Drained]] = {}
    for repeat in range(chosen.repeats):
        for count in (1, 2):
            with rig.place() as (folder, (server,)):
                rig.fill(server.url, chosen.events, seed=repeat)
                seen.setdefault(f"{count}", []).append(rig.drained(server, count, folder, events=chosen.events))
            with rig.sharded(nodes=2) as (folder, cluster):
                rig.fill(cluster.url, chosen.events, seed=repeat)
                seen.setdefault(f"{count} of two", []).append(rig.drained(cluster, count, folder, events=chosen.events))
    median = {name: statistics.median(one.events_per_s for one in runs) for name, runs in seen.items()}
    pairs = zip(seen["1"], seen["2"], strict=True)
    report.figures["two_workers_speedup"] = statistics.median(two.events_per_s / one.events_per_s for one, two in pairs)
    report.controls |= {
        "scaling_events_a_run": chosen.events,
        "one_worker_events_per_s": median["1"],
        "two_workers_events_per_s": median["2"],
        "one_worker_two_shards_events_per_s": median["1 of two"],
        "two_workers_two_shards_events_per_s": median["2 of two"],
        "worker_cpu_us_an_event": statistics.median(one.worker_us for one in seen["1"]),
        "redis_cpu_us_an_event": statistics.median(one.redis_us for one in seen["1"]),
    }


def freshness(report: Report, chosen: argparse.Namespace) -> None:
    """From when an event was due to its effect being readable, at a steady rate."""
    found = []
    for repeat in range(chosen.repeats):
        with rig.place() as (folder, (server,)), rig.workers(server.url, 1, folder):
            found.append(rig.watched_ms(server.url, folder, chosen, seed=repeat))
    p50, p99 = ([float(np.percentile(times, at)) for times in found] for at in (50, 99))
    report.figures["freshness_ms_p99"] = statistics.median(p99)
    report.controls["freshness_ms_p50"] = statistics.median(p50)
    report.controls["freshness_events_per_s"] = chosen.per_second


def ranking(report: Report, chosen: argparse.Namespace) -> None:
    """A click until the list is another one, through HTTP, while 1,000 other events a second are counted."""
    times = []
    with rig.place() as (folder, (server,)):
        stage = Stage(folder / "store", server.url)
        stage.flip_live()
        with rig.workers(server.url, 1, folder), serving(stage, folder=folder) as served, httpx.Client() as caller:
            served.wait_ready()
            others = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.bench.nearline_rig", "--out", str(folder / "others.json")),
                    *("--per-second", "1000", "--seconds", "600"),
                ],
                cwd=CHECKOUT,
                env={**os.environ, "HEADGATE_REDIS_URL": server.url},
            )
            try:
                for number in range(chosen.clicks):
                    times.append(_felt_ms(caller, served.url, f"u{number % 120}"))
            finally:
                others.terminate()
                others.wait()
    report.figures["event_to_ranking_ms_p99"] = float(np.percentile(times, 99))
    report.controls["event_to_ranking_ms_p50"] = float(np.percentile(times, 50))


def _felt_ms(caller: httpx.Client, url: str, user: str) -> float:
    """From sending a click on the third item to a whole list without it, whose nearline features have moved too."""

    def asked() -> list[str]:
        answer = caller.post(f"{url}/recommend", json={"user_id": user, "n": 20}).raise_for_status().json()
        return [item["item_id"] for item in answer["items"]]

    before = asked()
    clicks = caller.get(f"{url}/users/{user}").raise_for_status().json()["nearline"]["clicks_last_hour"]
    began_s = time.monotonic()
    event = {"user_id": user, "item_id": before[2], "event_type": "click"}
    caller.post(f"{url}/events", json=event).raise_for_status()
    while before[2] in asked():
        if time.monotonic() - began_s > 30:
            raise RuntimeError(f"{before[2]} is still on the list of {user} after 30 s")
    while caller.get(f"{url}/users/{user}").raise_for_status().json()["nearline"]["clicks_last_hour"] <= clicks:
        if time.monotonic() - began_s > 30:
            raise RuntimeError(f"the features of {user} have not moved after 30 s")
    return (time.monotonic() - began_s) * 1000


PARTS: dict[str, Callable[[Report, argparse.Namespace], None]] = {
    "throughput": throughput,
    "scaling": scaling,
    "freshness": freshness,
    "ranking": ranking,
    "spark": proofs.spark_freshness,
    "kills": proofs.kills,
    "replays": proofs.replays,
}


if __name__ == "__main__":
    main()
