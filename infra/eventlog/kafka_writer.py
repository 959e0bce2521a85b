"""kafka_writer: records into a topic's partitions; an append is over once the broker has acknowledged every one of its records."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from infra.contracts.errors import DependencyUnavailable
from infra.contracts.events import Record
from infra.eventlog import records as wire
from infra.eventlog.kafka_topic import unavailable
from infra.eventlog.protocol import Appended

_GIVE_UP_MS = 10_000
_OPTIONS: dict[str, str | int | bool] = {
    "acks": "all",
    "enable.idempotence": True,  # what librdkafka itself sends twice is written once, in order
    "linger.ms": 1,
    "message.timeout.ms": _GIVE_UP_MS,
}
_MEND = "Send the events again with the same event_id; one that was taken counts once."
_POLL_S = 0.2
_ROOM_POLL_S = 0.005
_BREATH = 500
"""Records after which an append lets the event loop go on."""


class ShardWriter:
    """One producer, made when it is first needed, and one thread that takes its acknowledgements."""

    def __init__(self, config: dict[str, str | int | bool], topic: str) -> None:
        self._config = {**config, **_OPTIONS}
        self._topic = topic
        self._running: _Running | None = None

    async def append(self, records: Sequence[Record]) -> list[Appended]:
        """See EventLog. Gives up on a record that is not acknowledged in 10 s."""
        shards = [record.shard for record in records]
        waiting = _Waiting(asyncio.get_running_loop(), len(records))
        if self._running is None:
            self._running = _Running(self._config)
        producer = self._running.producer
        for number, (record, shard) in enumerate(zip(records, shards, strict=True)):
            payload, taken = wire.encode(record), functools.partial(waiting.acknowledged, number)
            while not self._produce(producer, payload, shard, taken):
                await asyncio.sleep(_ROOM_POLL_S)  # its queue is full; what is in it is sent or given up
            if number % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
        await waiting.done
        if waiting.error is not None:
            raise self._failed(waiting.error)
        if 0 in waiting.offsets:  # sent twice by librdkafka, and the broker no longer knew where the first one stands
            raise DependencyUnavailable("The event log in Kafka did not say where all records stand.", mend=_MEND)
        return [Appended(shard, offset, duplicate=False) for shard, offset in zip(shards, waiting.offsets, strict=True)]

    def close(self) -> None:
        """Wait for what is under way, as long as an append would; end the thread."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def _produce(self, producer: Producer, payload: bytes, shard: int, taken: functools.partial[None]) -> bool:
        """Whether there was room for it."""
        try:
            producer.produce(self._topic, value=payload, partition=shard, on_delivery=taken)
        except BufferError:
            return False
        except KafkaException as error:
            raise self._failed(error.args[0]) from error
        return True

    def _failed(self, error: KafkaError) -> Exception:
        """After a fatal error a producer takes nothing more: the next append makes a new one."""
        if error.fatal() and self._running is not None:
            self._running.end()
            self._running = None
        return unavailable("did not take all records", error, mend=_MEND)


class _Waiting:
    """The acknowledgements that one append waits for. offsets: the log's, one a record, 0 until it is known."""

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self.offsets = [0] * count
        self.error: KafkaError | None = None
        self._loop = loop
        self._left = count

    def acknowledged(self, number: int, error: KafkaError | None, message: Message) -> None:
        """Called by the thread, once a record."""
        offset = message.offset()
        self.error = self.error or error
        if error is None and offset is not None:
            self.offsets[number] = offset + 1
        self._left -= 1
        if self._left == 0:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self.done.done():  # whoever waited may have been cancelled
            self.done.set_result(None)


class _Running:
    """A producer and its thread."""

    def __init__(self, config: dict[str, str | int | bool]) -> None:
        self.producer = Producer(config)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="kafka-acknowledgements", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Let the thread end when it likes."""
        self._ended.set()

    def close(self) -> None:
        self.producer.flush(_GIVE_UP_MS / 1000)
        self.end()
        self._thread.join()

    def _poll(self) -> None:
        while not self._ended.is_set():
            self.producer.poll(_POLL_S)
