"""Kafka as the event log, on a real broker: what it alone does, and how it is set up."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from infra.contracts.errors import DependencyUnavailable, OperatorError
from infra.contracts.events import SHARDS
from infra.contracts.ids import ApplicationName
from infra.eventlog.kafka import KafkaLog, kafka_options, topic_of
from infra.eventlog.protocol import EventLog, LogLost
from infra.eventlog.records import encode
from infra.eventlog.terms import Read, may_read_on, require_same
from tests.fixtures.kafka import KafkaProcess
from tests.fixtures.logs import ids, kafka_log, new_application, record, until_read


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
