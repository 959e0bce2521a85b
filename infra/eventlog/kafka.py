"""kafka: the event log as one topic of Apache Kafka (or what speaks its protocol), a partition a shard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from typing import ParamSpec, TypeVar

from infra.contracts.errors import OperatorError
from infra.contracts.events import Record
from infra.contracts.ids import ApplicationName
from infra.eventlog.kafka_reader import ShardReader
from infra.eventlog.kafka_topic import Topic
from infra.eventlog.kafka_writer import ShardWriter
from infra.eventlog.protocol import Appended, Extent, Slice

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")

_OPTIONS: dict[str, str | int | bool] = {
    "client.id": "headgate",
    "log_level": 2,  # what fails is raised, not written to stderr
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1000,
}


class KafkaLog:
    """An EventLog. Connects when it is first used; what waits for the broker does so in threads, never in the event loop."""

    finds_duplicates = False

    def __init__(self, application: ApplicationName, *, bootstrap: str, extra: Mapping[str, str | int | bool]) -> None:
        """bootstrap: `host:port,host:port`. extra: more of librdkafka's options, such as those for TLS; see `kafka_options`."""
        config = {**_OPTIONS, **extra, "bootstrap.servers": bootstrap}
        self._topic = Topic(config, topic_of(application))
        self._writer = ShardWriter(config, self._topic.name)
        self._reader = ShardReader(config, self._topic)
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="kafka-reads")
        self._opening: asyncio.Task[None] | None = None

    async def append(self, records: Sequence[Record]) -> list[Appended]:
        """See EventLog. Nothing is a duplicate here: `duplicate` is never set."""
        if not records:
            return []
        async with self._open():
            return await self._writer.append(records)

    async def read(self, after: Mapping[int, int], *, count: int) -> list[Slice]:
        """See EventLog. Offsets may have holes; one at the end gives a slice without records, so that `upto` reaches the tip."""
        if not after:
            return []
        async with self._open():
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._reading, self._reader.read, dict(after), count)

    async def extents(self, shards: Sequence[int]) -> dict[int, Extent]:
        """See EventLog."""
        return await self._ask(self._topic.extents, shards)

    async def offset_before(self, shard: int, moment: datetime) -> int:
        """See EventLog; by the broker's index of times."""
        return await self._ask(self._topic.offset_before, shard, int(moment.timestamp() * 1000))

    async def trim(self, shard: int, *, upto: int) -> None:
        """See EventLog."""
        await self._ask(self._topic.trim, shard, upto=upto)

    async def close(self) -> None:
        """Wait for what is being appended, then let go of connections and threads."""
        await asyncio.to_thread(self._writer.close)
        await asyncio.get_running_loop().run_in_executor(self._reading, self._reader.close)
        self._reading.shutdown()

    async def _ask(self, question: Callable[_Asked, _Answer], *args: _Asked.args, **kwargs: _Asked.kwargs) -> _Answer:
        async with self._open():
            return await asyncio.to_thread(question, *args, **kwargs)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        """The topic is there and as it must be. All who come while that is asked wait for one answer; after any failure it is
        asked again."""
        opening = self._opening = self._opening or asyncio.create_task(asyncio.to_thread(self._topic.require))
        try:
            await asyncio.shield(opening)
            yield
        except Exception:
            if self._opening is opening:
                self._opening = None
            raise


def topic_of(application: ApplicationName) -> str:
    """`headgate.ranking.events`."""
    return f"headgate.{application}.events"


def kafka_options(text: str) -> dict[str, str | int | bool]:
    """The options of HEADGATE_KAFKA_CONFIG, a JSON object; empty: none. Raises OperatorError, which does not show the text."""
    try:
        options = json.loads(text or "{}")
    except ValueError:
        options = None
    if not isinstance(options, dict) or not all(isinstance(value, str | int) for value in options.values()):
        raise OperatorError(
            "HEADGATE_KAFKA_CONFIG is no JSON object of librdkafka's options.",
            mend='Wanted is a form like {"security.protocol": "SASL_SSL", "sasl.username": "..."}.',
        )
    return options
