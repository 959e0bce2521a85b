"""targets: what was promised of which figure, and what each benchmark's figures are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Target:
    """One promise. at: the limit itself keeps it."""

    benchmark: str
    figure: str
    says: str
    bound: Literal["at most", "at least"]
    at: float

    def reached(self, value: float) -> bool:
        """Whether a measured value keeps the promise; NaN never does."""
        return value <= self.at if self.bound == "at most" else value >= self.at

    def used_fraction(self, value: float) -> float:
        """1 at the limit, below 1 where the promise is kept with room to spare."""
        if self.bound == "at least":
            return self.at / value
        return value / self.at if self.at else float(1 + (value > 0))


TARGETS = (
    Target("demo", "warm_s", "`make demo` in a fresh clone on warm package caches, seconds", "at most", 240),
    Target("batch", "spark_parquet_vs_faiss_ratio", "users/s of Spark to Parquet / users/s of FAISS", "at least", 0.75),
    Target("batch", "redis_bytes_vs_payload_ratio", "growth of Redis's memory / bytes of the records", "at most", 1.06),
    Target(
        "serve",
        "fetch_decode_ms_p99",
        "fetch and decode of 1000 candidates by the service's reader, p99, ms",
        "at most",
        5,
    ),
    Target("snapshots", "flip_server_ms_p99", "a flip inside Redis, p99, ms", "at most", 10),
    Target("snapshots", "readers_switch_ms_p99", "from a flip to a reader that serves it, p99, ms", "at most", 1000),
    Target(
        "snapshots", "rollback_rest_s_p95", "rollback by Airflow's REST API until it is served, p95, s", "at most", 4
    ),
    Target(
        "snapshots", "rollback_rest_mid_build_s_p95", "the same while a snapshot is being built, p95, s", "at most", 4
    ),
    Target("snapshots", "load_users_per_s", "loading 1000 candidates a user into Redis, users/s", "at least", 25_000),
    Target("snapshots", "gc_read_p99_ratio", "p99 of reads during garbage collection / without", "at most", 1.5),
    Target("snapshots", "torn_reads", "records of another version than the request's, of all reads", "at most", 0),
    Target("snapshots", "missing_reads", "records not there although leased, of all reads", "at most", 0),
    Target(
        "nearline", "worker_vs_append_ratio", "events/s of one worker / events/s of the log's appends", "at least", 0.6
    ),
    Target("nearline", "worker_events_per_s", "events/s that one worker process counts", "at least", 60_000),
    Target(
        "nearline", "freshness_ms_p99", "from an event to its effect being readable at 5,000/s, p99, ms", "at most", 250
    ),
    Target(
        "nearline", "event_to_ranking_ms_p99", "from a click to a changed list, both by HTTP, p99, ms", "at most", 1000
    ),
    Target(
        "nearline",
        "worker_vs_spark_freshness_ratio",
        "the worker's p99 freshness / Spark Structured Streaming's, on Kafka",
        "at most",
        0.15,
    ),
    Target(
        "nearline", "wrong_rows_worker", "entities whose state is wrong after 20 kill -9 of the worker", "at most", 0
    ),
    Target("nearline", "wrong_rows_spark", "the same of Spark", "at most", 0),
    Target("nearline", "replay_mismatches", "served vectors that a replay computes otherwise", "at most", 0),
    Target("nearline", "two_workers_speedup", "events/s of two workers / of one, on one Redis", "at least", 1.4),
    Target("serve", "recommend_p99_ms_half_load", "`/recommend` at half of its peak rate, p99, ms", "at most", 40),
    Target("serve", "model_only_ratio", "requests/s a core / calls/s of the model alone on one core", "at least", 0.72),
    Target("serve", "p99_vs_single_ratio", "p99 at half load / the median of one request at a time", "at most", 6),
    Target(
        "cascade", "stage_overshoot_ms_p99_idle", "a request freed later than its stage's budget, p99, ms", "at most", 1
    ),
    Target("cascade", "stage_overshoot_ms_p99_load70", "the same at 70 % of the peak rate, p99, ms", "at most", 5),
    Target(
        "cascade",
        "batching_worst_ratio",
        "throughput of shared native calls / of calls by themselves, at the worst number of callers",
        "at least",
        0.98,
    ),
)

COMMANDS = {
    name: f"make bench-{name}" for name in ("demo", "batch", "serve", "cascade", "snapshots", "nearline", "quality")
}
"""Each benchmark's command, in the order of the page."""

ABOUT = {
    "demo": "A clone of the checkout in a temporary folder; its `make demo` to exit 0, installation included. Warm means: `make "
    "install` ran in that clone just before and all that it left there was deleted again, so pip's and uv's own caches hold "
    "every wheel; the sample data, the stack's state and the snapshots are made from nothing.",
    "batch": "Spark reads user vectors from Parquet, searches, maps, orders, packs and writes Parquet; FAISS alone searches the "
    "same matrix in memory with as many threads. Redis is a fresh one into which a snapshot's records are loaded.",
    "serve": "One worker process and a Redis of their own. The peak is the best closed-loop rate; at half of it requests arrive "
    "as a Poisson process and each latency counts from the moment its request was due. The load generator runs on the same "
    "machine. The model alone is the same trees on the same rows in one thread, calls a second of its processor time; requests a "
    "core are those of the peak a second of the service's processor time. The default service is the same class under BentoML's "
    "defaults: its own routes, access log and tracing, no front. Fetch and decode is timed by itself, four callers at a time; as a "
    "stage of the answers at half load (`stage_retrieval_ms_p99`) it also waits for the event loop and for a core: service, "
    "scoring, Redis and generator share two.",
    "cascade": "Batching: closed loop, in one process with one native thread, as a worker has. A call is made for each request "
    "alone, or shared by all that wait when the thread is free (`bentos/web/batching.py`), or by BentoML's own dispatcher, which "
    "is gone past while it is idle; the three take turns, and a ratio is the median over such turns. The trees' calls are shared "
    "by default, and the promise is about them; the light scorer and the network are called alone; the network is fitted and "
    "exported as training does. Overshoot: some requests of the feed's cascade meet a native call that takes three times its "
    "budget; how much later than the budget they go on.",
    "snapshots": "A Redis of its own. Inside Redis is what SLOWLOG says of the flip's script; a reader serves a version once a "
    "request of its pinned it. Torn and missing reads: processes that read as the service does, two round trips a request, while "
    "flips and rollbacks go on and copies that nobody leases are deleted; the controls are the same readers when they look at "
    "the alias again within a request (`torn_reads_reread`), and when a copy is deleted at once (`missing_reads_no_grace`). "
    "Loading writes every record and reads all of them back. Reads during garbage collection come at a set rate, and count from "
    "the moment each was due. A rollback by REST counts from the request to Airflow to the first answer from the other version.",
    "nearline": "Events are clicks, views and purchases; each concerns a user and an item, so it is two records. Throughput: a log "
    "is appended full in batches of 500 events, then one worker process drains it, timed from a quarter to three quarters. "
    "Freshness: events come open loop at a set rate from a process of their own, and each counts from the moment it was due until "
    "its shard's offset, which moves in the same call as the state, has passed it. Ranking: a click by POST /events until POST "
    "/recommend gives a list without the item and the user's features have moved, while 1,000 other events a second are counted. "
    "Two workers share the two cores with Redis: where a worker costs w and Redis r of processor an event (below), two can be at "
    "most 2w / (w + r) as fast as one. Two shards: log and state on a Redis Cluster of two nodes. The control of the replays "
    "(`asof_mismatches`) is the usual join of features by the time of the event.",
    "quality": "Recall@20, NDCG@20 and Recall@1000 over users with held-out items; items taken before are left out of the lists, "
    "all others are ranked. Gowalla: fitted on train, judged on valid (SNAP loc-gowalla, the split of the published tables, "
    "whose figures are for its test part and so not these). World: the generated shop's last week; the oracle ranks by the "
    "true tastes.",
}
