"""Kafka as the event log, on a real broker; what both logs promise is asked of Redis too, by the same tests."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio
import redis.asyncio
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from infra.contracts.errors import DependencyUnavailable, OperatorError
from infra.contracts.events import SHARDS, Record, shard_of
from infra.contracts.ids import ApplicationName
from infra.eventlog.kafka import KafkaLog, kafka_options, topic_of
from infra.eventlog.protocol import EventLog, Extent, LogLost, Slice
from infra.eventlog.records import decode, encode
from infra.eventlog.redis_streams import RedisStreamLog, StreamLayout
from infra.eventlog.terms import Read, may_read_on, require_same
from tests.fixtures.kafka import KafkaProcess
from tests.fixtures.proof import sized
from tests.fixtures.redis_server import free_port

_USERS = {shard: next(f"u{n}" for n in range(1000) if shard_of("user", f"u{n}") == shard) for shard in range(SHARDS)}


def record(number: int, *, shard: int = 3, note: str = "") -> Record:
    user = _USERS[shard]
    return Record("user", user, "click", 1_718_000_000_000_000 + number, f"e{number}", {"user_id": user, "note": note})


def ids(found: Slice) -> list[str]:
    return [row.event_id for row in decode(found.payloads)]


async def until_read(log: EventLog, after: dict[int, int], *, count: int = 100) -> list[Slice]:
    """What is read once the log answers again; fails after half a minute."""
    ends = time.monotonic() + 30
    while True:
        try:
            return await log.read(after, count=count)
        except DependencyUnavailable:
            assert time.monotonic() < ends, "it did not answer again"
            await asyncio.sleep(0.05)


def new_application() -> ApplicationName:
    return ApplicationName(f"t{uuid.uuid4().hex[:12]}")


def kafka_log(process: KafkaProcess, application: ApplicationName | None = None) -> KafkaLog:
    return KafkaLog(application or new_application(), bootstrap=process.bootstrap, extra={})


def redis_log(url: str) -> RedisStreamLog:
    name = new_application()
    layout = StreamLayout(
        stream=lambda shard: f"{name}:{{{shard}}}:log",
        tip=lambda shard: f"{name}:{{{shard}}}:tip",
        terms=lambda shard: f"{name}:{{{shard}}}:terms",
        seen=lambda shard, half: f"{name}:{{{shard}}}:seen:{half}",
        horizon=1000,
    )
    return RedisStreamLog(redis.asyncio.Redis.from_url(url), layout)


@pytest_asyncio.fixture(params=["kafka", "redis"])
async def log(request: pytest.FixtureRequest) -> AsyncIterator[EventLog]:
    """An empty log of either kind."""
    made: EventLog
    if request.param == "kafka":
        made = kafka_log(request.getfixturevalue("kafka"))
    else:
        made = redis_log(request.getfixturevalue("redis_url"))
    yield made
    await made.close()


# -- both


async def test_records_come_back_as_they_were_sent_in_their_shards_order(log: EventLog) -> None:
    sent = [record(n, shard=n % 3, note="a:{}\n\x00é") for n in range(30)]
    appended = await log.append(sent)
    assert [row.offset for row in appended] == [n // 3 + 1 for n in range(30)]
    assert [row.shard for row in appended] == [n % 3 for n in range(30)]
    assert not any(row.duplicate for row in appended)
    found = {part.shard: part for part in await log.read(dict.fromkeys(range(SHARDS), 0), count=100)}
    assert sorted(found) == [0, 1, 2]  # those without records are left out
    for shard, part in found.items():
        assert (part.after, part.upto, list(part.offsets)) == (0, 10, list(range(1, 11)))
        assert decode(part.payloads) == sent[shard::3]
        assert list(part.logged_ms) == sorted(part.logged_ms)


async def test_reading_goes_on_after_an_offset_and_stops_at_the_count(log: EventLog) -> None:
    await log.append([record(n, shard=n % 2) for n in range(20)])
    first = await log.read({0: 0, 1: 6}, count=4)
    assert [(part.shard, list(part.offsets)) for part in first] == [(0, [1, 2, 3, 4]), (1, [7, 8, 9, 10])]
    (rest,) = await log.read({0: 4, 1: 10}, count=100)
    assert (rest.shard, rest.after, rest.upto) == (0, 4, 10)
    assert await log.read({0: 10, 1: 10}, count=1) == []
    assert await log.read({}, count=1) == []


async def test_nothing_appended_is_nothing_written(log: EventLog) -> None:
    assert await log.append([]) == []
    assert await log.extents([0, 1]) == {0: Extent(1, 0), 1: Extent(1, 0)}
    assert await log.read({0: 0, 1: 0}, count=10) == []


async def test_what_was_acknowledged_is_in_the_next_read(log: EventLog) -> None:
    at = dict.fromkeys(range(SHARDS), 0)
    for n in range(100):
        sent = [record(n, shard=shard) for shard in {n % SHARDS, (7 * n + 1) % SHARDS}]
        await log.append(sent)
        found = await log.read(at, count=10)
        assert {part.shard: ids(part) for part in found} == {row.shard: [row.event_id] for row in sent}
        at |= {part.shard: part.upto for part in found}


async def test_of_many_who_append_at_once_every_record_stands_at_the_offset_it_was_told(log: EventLog) -> None:
    batches = [[record(100 * b + n, shard=(b + n) % 4) for n in range(20)] for b in range(10)]
    answers = await asyncio.gather(*(log.append(batch) for batch in batches))
    told = {
        (row.shard, row.offset): sent.event_id
        for batch, answer in zip(batches, answers, strict=True)
        for sent, row in zip(batch, answer, strict=True)
    }
    found = await log.read(dict.fromkeys(range(4), 0), count=1000)
    read = {(part.shard, offset): name for part in found for offset, name in zip(part.offsets, ids(part), strict=True)}
    assert read == told and len(told) == 200


async def test_a_moment_has_the_offsets_that_were_logged_before_it(log: EventLog) -> None:
    await log.append([record(n) for n in range(4)])
    (early,) = await log.read({3: 0}, count=10)
    while time.time() * 1000 < early.logged_ms[-1] + 2:
        await asyncio.sleep(0.001)
    between = datetime.now(UTC)
    while time.time() < between.timestamp() + 0.002:
        await asyncio.sleep(0.001)
    await log.append([record(n) for n in range(4, 6)])
    assert await log.offset_before(3, between) == 4
    assert await log.offset_before(3, datetime(2020, 1, 1, tzinfo=UTC)) == 0
    assert await log.offset_before(3, datetime(2200, 1, 1, tzinfo=UTC)) == 6
    assert await log.offset_before(5, between) == 0


async def test_what_was_trimmed_is_lost_to_whoever_had_not_read_it(log: EventLog) -> None:
    await log.append([record(n) for n in range(10)])
    await log.trim(3, upto=6)
    assert await log.extents([3]) == {3: Extent(7, 10)}
    (rest,) = await log.read({3: 6}, count=100)
    assert list(rest.offsets) == [7, 8, 9, 10]
    for behind in (0, 5):
        with pytest.raises(LogLost, match="Shard 3 of the log begins at 7; wanted is"):
            await log.read({3: behind}, count=100)
    await log.trim(3, upto=4)
    assert await log.extents([3]) == {3: Extent(7, 10)}
    await log.trim(3, upto=10)
    assert await log.extents([3]) == {3: Extent(11, 10)}
    assert await log.read({3: 10}, count=1) == []
    assert (await log.append([record(11)]))[0].offset == 11


async def test_a_reader_who_has_read_more_than_there_is_is_told_of_the_loss(log: EventLog) -> None:
    await log.append([record(n) for n in range(5)])
    with pytest.raises(LogLost, match="Shard 3 of the log ends at 5; it was read up to 6 before"):
        await log.read({3: 6}, count=10)
    assert len(await log.read({3: 0}, count=10)) == 1  # and goes on where that is right


async def test_any_sequence_of_reads_gives_what_a_list_would(log: EventLog) -> None:
    rng = random.Random(20_261_125)
    tips = {shard: rng.choice([0, 1, 50, 900]) for shard in range(SHARDS)}
    await log.append([record(n, shard=shard) for shard, tip in tips.items() for n in range(1, tip + 1)])
    for _ in range(sized(60, full=600)):
        at = {shard: rng.randint(0, tips[shard]) for shard in rng.sample(range(SHARDS), rng.randint(1, SHARDS))}
        for _ in range(rng.randint(1, 4)):
            count = rng.choice([1, 3, 100, 5000])
            found = {part.shard: part for part in await log.read(at, count=count)}
            for shard, after in at.items():
                wanted = list(range(after + 1, min(after + count, tips[shard]) + 1))
                part = found.get(shard, Slice(shard, after, after, [], [], []))
                assert list(part.offsets) == wanted
                assert ids(part) == [f"e{n}" for n in wanted]
                assert (part.after, part.upto) == (after, wanted[-1] if wanted else after)
                at[shard] = part.upto


@pytest.mark.parametrize("kind", ["kafka", "redis"])
async def test_a_log_that_nobody_answers_for_is_unavailable_at_every_call(kind: str) -> None:
    port = free_port()
    log: EventLog
    if kind == "kafka":
        log = KafkaLog(new_application(), bootstrap=f"127.0.0.1:{port}", extra={})
    else:
        log = redis_log(f"redis://127.0.0.1:{port}/0")
    calls: list[Awaitable[object]] = [
        log.append([record(1)]),
        log.read({3: 0}, count=1),
        log.extents([3]),
        log.offset_before(3, datetime.now(UTC)),
        log.trim(3, upto=1),
    ]
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [DependencyUnavailable] * 5
    await log.close()


# -- Kafka alone


@pytest_asyncio.fixture
async def topic(kafka: KafkaProcess) -> AsyncIterator[tuple[KafkaLog, str]]:
    """A log in Kafka, and its topic's name."""
    application = new_application()
    log = kafka_log(kafka, application)
    yield log, topic_of(application)
    await log.close()


@pytest.fixture
def transactions(kafka: KafkaProcess) -> Iterator[Producer]:
    """Somebody else who writes to the topic, in transactions."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": uuid.uuid4().hex, "log_level": 0})
    producer.init_transactions(30)
    yield producer
    producer.flush(10)


async def until_tip(log: EventLog, tip: int) -> None:
    """Returns once shard 3 ends there: a transaction's end is marked a moment after it is answered."""
    async with asyncio.timeout(30):
        while (await log.extents([3]))[3].tip != tip:
            await asyncio.sleep(0.005)


async def in_thread(call: Callable[[float], object]) -> None:
    await asyncio.to_thread(call, 30.0)


async def test_kafka_keeps_what_is_sent_twice_and_says_so(topic: tuple[KafkaLog, str]) -> None:
    log, _ = topic
    first, again = await log.append([record(1)]), await log.append([record(1)])
    assert not log.finds_duplicates
    assert [(row.offset, row.duplicate) for row in first + again] == [(1, False), (2, False)]
    (found,) = await log.read({3: 0}, count=10)
    assert ids(found) == ["e1", "e1"]


async def test_the_hole_of_an_aborted_transaction_is_no_loss(
    topic: tuple[KafkaLog, str], transactions: Producer
) -> None:
    log, name = topic
    await log.append([record(1), record(2)])
    at_tip = await log.read({3: 0}, count=10)
    assert at_tip[0].upto == 2
    transactions.begin_transaction()
    for _ in range(5):
        transactions.produce(name, value=b"never committed", partition=3)
    transactions.flush(30)
    assert await log.read({3: 2}, count=10) == []  # it is open: nobody knows yet
    await in_thread(transactions.abort_transaction)

    tip = 8  # five records and the mark of their end
    await until_tip(log, tip)
    (hole,) = await log.read({3: 2}, count=10)
    assert (hole.after, hole.upto, list(hole.offsets)) == (2, tip, [])
    assert await log.read({3: tip}, count=10) == []

    assert (await log.append([record(3)]))[0].offset == 9
    (found,) = await log.read({3: tip}, count=10)
    assert (found.after, found.upto, ids(found)) == (8, 9, ["e3"])
    (whole,) = await log.read({3: 0}, count=10)  # anew, over the hole
    assert (list(whole.offsets), ids(whole), whole.upto) == ([1, 2, 9], ["e1", "e2", "e3"], 9)
    (part,) = await log.read({3: 5}, count=10)  # from within it
    assert (list(part.offsets), part.upto) == ([9], 9)


async def test_what_stands_behind_an_open_transaction_is_read_once_that_is_committed(
    topic: tuple[KafkaLog, str], transactions: Producer
) -> None:
    log, name = topic
    await log.append([record(1)])
    transactions.begin_transaction()
    transactions.produce(name, value=encode(record(2)), partition=3)
    transactions.flush(30)
    assert (await log.append([record(3)]))[0].offset == 3
    (found,) = await log.read({3: 0}, count=10)
    assert (ids(found), found.upto) == (["e1"], 1)
    await in_thread(transactions.commit_transaction)
    await until_tip(log, 4)
    (rest,) = await log.read({3: 1}, count=10)
    assert (ids(rest), rest.upto) == (["e2", "e3"], 4)


async def test_a_reader_whom_trimming_overtakes_is_told_and_skips_nothing(topic: tuple[KafkaLog, str]) -> None:
    log, _ = topic
    count = 40_000  # of a kilobyte each: more than the consumer fetches ahead
    await log.append([record(n, note="x" * 1000) for n in range(count)])
    at = 0
    (found,) = await log.read({3: at}, count=1)
    await log.trim(3, upto=count)
    with pytest.raises(LogLost):
        while at < count:
            assert (found.after, list(found.offsets)) == (at, list(range(at + 1, found.upto + 1)))
            at = found.upto
            (found,) = await log.read({3: at}, count=1000)


async def test_a_topic_with_other_partitions_is_refused(kafka: KafkaProcess) -> None:
    application = new_application()
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for made in admin.create_topics([NewTopic(topic_of(application), num_partitions=3)]).values():
        made.result(30)
    log = kafka_log(kafka, application)
    with pytest.raises(OperatorError, match=f"has 3 partitions; wanted are {SHARDS}, one a shard"):
        await log.append([record(1)])
    with pytest.raises(OperatorError, match="has 3 partitions"):
        await log.read({3: 0}, count=1)
    await log.close()


async def test_a_topic_that_was_deleted_is_a_loss_to_whoever_had_read_it(
    kafka: KafkaProcess, topic: tuple[KafkaLog, str]
) -> None:
    log, name = topic
    await log.append([record(n) for n in range(5)])
    assert (await log.read({3: 0}, count=10))[0].upto == 5
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for gone in admin.delete_topics([name]).values():
        gone.result(30)
    with pytest.raises(LogLost, match="ends at 0; it was read up to 5 before"):
        while True:
            await until_read(log, {3: 5})


async def test_a_topic_that_was_made_anew_is_another_log_however_long_it_is(
    kafka: KafkaProcess, topic: tuple[KafkaLog, str]
) -> None:
    log, name = topic
    await log.append([record(n) for n in range(5)])
    (before,) = await log.read({3: 0}, count=10)
    extent = (await log.extents([3]))[3]
    assert before.terms == extent.terms and require_same(3, extent.terms, Read(5, extent.terms[-1].id))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for gone in admin.delete_topics([name]).values():
        gone.result(30)
    again = kafka_log(kafka, ApplicationName(name.split(".")[1]))
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(DependencyUnavailable):
                await again.append([record(n) for n in range(20, 30)])
                break
    (after,) = await until_read(again, {3: 5})
    with pytest.raises(LogLost, match="another one beyond 0; it was read up to 5"):
        require_same(3, after.terms, Read(5, before.terms[-1].id))
    assert not may_read_on((await again.extents([3]))[3], Read(5, before.terms[-1].id))
    await again.close()


async def test_a_broker_killed_while_it_is_written_to_loses_nothing_that_it_acknowledged(
    own_kafka: KafkaProcess,
) -> None:
    application = new_application()
    log = kafka_log(own_kafka, application)
    acknowledged: dict[str, int] = {}
    pending = [record(n) for n in range(200_000)]

    async def write() -> None:
        while pending:
            answers = await log.append(pending[:50])
            acknowledged.update((sent.event_id, row.offset) for sent, row in zip(pending[:50], answers, strict=True))
            del pending[:50]

    writing = asyncio.create_task(write())
    while len(acknowledged) < 2000:
        assert not writing.done(), "it ended before the broker was killed"
        await asyncio.sleep(0.001)
    (seen,) = await log.read({3: 0}, count=500)
    await asyncio.to_thread(own_kafka.kill)
    with pytest.raises(DependencyUnavailable, match="same event_id"):
        await writing
    with pytest.raises(DependencyUnavailable):
        await log.read({3: seen.upto}, count=100_000)
    await asyncio.to_thread(own_kafka.start)

    del pending[100:]  # the 50 that it did not answer for are among them
    await write()
    (rest,) = await until_read(log, {3: seen.upto}, count=1_000_000)
    stands = dict(zip([*seen.offsets, *rest.offsets], ids(seen) + ids(rest), strict=True))
    assert all(stands[offset] == name for name, offset in acknowledged.items())
    assert list(dict.fromkeys(stands.values())) == list(
        acknowledged
    )  # those sent twice aside, all of them in their order
    await log.close()


def test_options_are_a_json_object_and_never_shown() -> None:
    assert kafka_options("") == {}
    assert kafka_options('{"security.protocol": "SSL", "linger.ms": 5}') == {"security.protocol": "SSL", "linger.ms": 5}
    for bad in ("{secret", '["secret"]', '{"sasl.password": ["secret"]}'):
        with pytest.raises(OperatorError, match="HEADGATE_KAFKA_CONFIG is no JSON object") as raised:
            kafka_options(bad)
        assert "secret" not in str(raised.value)


async def test_an_option_that_librdkafka_does_not_know_is_named() -> None:
    log = KafkaLog(new_application(), bootstrap="127.0.0.1:1", extra={"no.such.option": "1"})
    with pytest.raises(OperatorError, match=r"no\.such\.option.*HEADGATE_KAFKA_CONFIG"):
        await log.extents([0])
    await log.close()
