"""nearline_proofs: the parts of bench_nearline that count what is wrong: after kills of the worker and of Spark, and in replays."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bentos.ranking.offline import Offline
from infra.catalog.features.nearline import plan_of
from infra.config.settings import settings
from infra.nearline.decision_archive import read_decisions
from spark_jobs.training.consistency import check, control, summary
from tests.bench import nearline_rig as rig
from tests.bench.report import Report
from tests.fixtures.kafka import KafkaProcess
from tests.fixtures.nearline_kills import by_command, differing, killed_again_and_again
from tests.fixtures.nearline_shop import Shop, counted_plainly, now_us, records_of
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.served_answers import AT_ONCE, served_answers
from tests.fixtures.stream_town import NOW_US, Town, stream_town
from tests.fixtures.tiny_snapshot import RANKING


@contextmanager
def broker(folder: Path) -> Iterator[KafkaProcess]:
    """A Kafka of its own."""
    kafka = KafkaProcess(folder / "kafka")
    kafka.start()
    try:
        yield kafka
    finally:
        kafka.stop()


def kills(report: Report, chosen: argparse.Namespace) -> None:
    """SIGKILL at random moments while events come: entities whose state is not that of a plain loop over the events."""
    with rig.place() as (folder, (server,)):
        report.figures["wrong_rows_worker"] = asyncio.run(_worker(server, folder, chosen.kills))
    with rig.place() as (folder, (server,)), broker(folder) as kafka:
        report.figures["wrong_rows_spark"] = asyncio.run(_spark(kafka, server, folder, chosen.kills))
    report.figures["kills"] = chosen.kills


async def _worker(server: RedisProcess, folder: Path, kills: int) -> int:
    shop = Shop(server.url, application=RANKING)
    events = await killed_again_and_again(shop, by_command(server.url, folder, kills=kills))
    wrong = differing(await shop.states(), counted_plainly(records_of(events)), now_us())
    await shop.close()
    return len(wrong)


async def _spark(kafka: KafkaProcess, server: RedisProcess, folder: Path, kills: int) -> int:
    rng = np.random.default_rng(1)
    async with stream_town(kafka, server, folder) as town:
        await town.append(2_000)
        for _ in range(kills):
            process = town.start()
            await town.until_counted(process, share=0.1)
            await town.append(500)
            await asyncio.sleep(float(rng.random()))
            process.kill()
            process.wait(timeout=10)
        process = town.start()
        await town.until_counted(process, share=1.0)
        shop = Shop(server.url, application=RANKING)
        wrong = differing(await shop.states(), await town.expected(), NOW_US)
        return len(wrong)


def replays(report: Report, chosen: argparse.Namespace) -> None:
    """Answers of a running service amid clicks, late ones too, made again from the archive; and the usual join as the control."""
    with rig.place() as (folder, (server,)):
        rounds = -(-chosen.answers // AT_ONCE)
        stage, archive = asyncio.run(served_answers(server, folder, rounds=rounds))
        entries = list(read_decisions(archive))
        offline = Offline(str(stage.root), RANKING, horizon=settings().log_duplicate_horizon)
        found = summary(asyncio.run(check(entries, offline, control(archive, plan_of(RANKING), entries))))
    vectors = sum(len(entry.decision().features) for entry in entries)
    report.figures["replayed_vectors"] = vectors if found.replayed == len(entries) else float("nan")
    report.figures["replay_mismatches"] = found.mismatches + found.answers_that_differ
    report.controls |= {
        "asof_mismatches": found.as_of_mismatches,
        "replayed_answers": found.replayed,
        "replayed_values": found.values,
        "asof_answers_that_differ": found.as_of_answers_that_differ,
    }


def spark_freshness(report: Report, chosen: argparse.Namespace) -> None:
    """The same events at the same rate through the same Kafka: counted by a worker, then by Spark."""
    with rig.place() as (folder, (server,)), broker(folder) as kafka:
        environment = {"HEADGATE_EVENT_LOG": "kafka", "HEADGATE_KAFKA_BOOTSTRAP": kafka.bootstrap}
        with rig.workers(server.url, 1, folder, environment=environment):
            before = argparse.Namespace(**vars(chosen) | {"seconds": 5.0})  # it starts and makes its topic meanwhile
            rig.watched_ms(server.url, folder, before, seed=3, environment=environment)
            worker = rig.watched_ms(server.url, folder, chosen, seed=1, environment=environment)
    with rig.place() as (folder, (server,)), broker(folder) as kafka:
        environment = {"HEADGATE_EVENT_LOG": "kafka", "HEADGATE_KAFKA_BOOTSTRAP": kafka.bootstrap}
        spark = asyncio.run(_spark_ms(kafka, server, folder, chosen, environment))
    p99_worker, p99_spark = (float(np.percentile(times, 99)) for times in (worker, spark))
    report.figures["worker_vs_spark_freshness_ratio"] = p99_worker / p99_spark
    report.controls |= {"worker_on_kafka_freshness_ms_p99": p99_worker, "spark_freshness_ms_p99": p99_spark}


async def _spark_ms(
    kafka: KafkaProcess, server: RedisProcess, folder: Path, chosen: argparse.Namespace, environment: dict[str, str]
) -> list[float]:
    async with stream_town(kafka, server, folder) as town:
        await _warm(town)
        found = await asyncio.to_thread(rig.watched_ms, server.url, folder, chosen, seed=2, environment=environment)
        town.started[-1].send_signal(signal.SIGTERM)
        await asyncio.to_thread(town.started[-1].wait, 60)
        return found


async def _warm(town: Town) -> None:
    """A stream that has counted some micro-batches: what a JVM does at first is not what it does."""
    process = town.start()
    for _ in range(5):
        await town.append(2_000)
        await town.until_counted(process, share=1.0)
