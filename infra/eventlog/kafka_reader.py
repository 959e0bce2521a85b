"""kafka_reader: shards read by offset: librdkafka fetches ahead of the reader, who goes on where it stopped without asking anew."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from infra.contracts.errors import ContractViolation, DependencyUnavailable
from infra.eventlog.kafka_topic import PATIENCE_S, Topic, unavailable
from infra.eventlog.protocol import LogLost, Slice, Terms

_OPTIONS: dict[str, str | int | bool] = {
    "group.id": "headgate",  # required; no group is joined and nothing committed, for the reader keeps its offsets itself
    "enable.auto.commit": False,
    "auto.offset.reset": "error",  # a reader is never moved in silence
    "isolation.level": "read_committed",
    "enable.partition.eof": True,  # tells how far a hole at the end reaches
    "fetch.wait.max.ms": 50,  # a partition that is new to the reader waits for the fetch that is under way
    "fetch.error.backoff.ms": 100,
    "fetch.queue.backoff.ms": 10,  # the default of 1 s would idle a fast reader: measured, 4.3 us a record against 1.0
    "queued.max.messages.kbytes": 16_384,
}
_PAGE = 4000
_TRIMMED = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
_MEND = (
    "Events are lost. Build the state anew from the archive (python -m spark_jobs.nearline.replay), or accept the loss: "
    "python -m infra.nearline skip --shard N --reason WHY"
)


@dataclass(slots=True)
class _Shard:
    """What was fetched of a shard and not yet given out. given, fetched: all that is <= them was."""

    given: int
    fetched: int
    offsets: list[int] = field(default_factory=list)
    logged_ms: list[int] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)

    def take(self, number: int, count: int, terms: Terms) -> Slice:
        """Up to `count` records; all that was fetched, and the hole behind it, where it is no more than that."""
        after, offsets, logged_ms, payloads = self.given, self.offsets, self.logged_ms, self.payloads
        if len(offsets) <= count:
            self.offsets, self.logged_ms, self.payloads = [], [], []
            self.given = self.fetched
        else:
            self.offsets, self.logged_ms, self.payloads = offsets[count:], logged_ms[count:], payloads[count:]
            offsets, logged_ms, payloads = offsets[:count], logged_ms[:count], payloads[:count]
            self.given = offsets[-1]
        return Slice(number, after, self.given, offsets, logged_ms, payloads, terms)


class ShardReader:
    """One consumer; for one thread at a time."""

    def __init__(self, config: dict[str, str | int | bool], topic: Topic) -> None:
        self._config = {**config, **_OPTIONS}
        self._topic = topic
        self._consumer: Consumer | None = None
        self._shards: dict[int, _Shard] = {}

    def read(self, after: Mapping[int, int], count: int) -> list[Slice]:
        """See EventLog. A shard whose new offsets hold no record (a hole) gives a slice without records."""
        try:
            if {number: shard.given for number, shard in self._shards.items()} != dict(after):
                self._begin(after)
            terms = self._topic.terms()
            if any(len(shard.offsets) < count for shard in self._shards.values()):
                self._fetch(self._tips(after), count)
        except KafkaException as error:
            self.close()
            raise unavailable("cannot be read", error) from error
        except BaseException:
            self.close()  # the next read begins anew, and looks at the log's ends
            raise
        slices = [shard.take(number, count, terms) for number, shard in self._shards.items()]
        return [found for found in slices if found.upto > found.after]

    def close(self) -> None:
        """Let go of the consumer; a later read makes another."""
        self._shards = {}
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _begin(self, after: Mapping[int, int]) -> None:
        """Fetch from these offsets on."""
        for number, extent in self._topic.extents(list(after)).items():
            if after[number] + 1 < extent.first:
                raise LogLost(
                    f"Shard {number} of the log begins at {extent.first}; wanted is {after[number] + 1}.", mend=_MEND
                )
        if self._consumer is None:
            self._consumer = Consumer(self._config)
        self._consumer.assign([TopicPartition(self._topic.name, number, offset) for number, offset in after.items()])
        self._shards = {number: _Shard(offset, offset) for number, offset in after.items()}

    def _tips(self, after: Mapping[int, int]) -> dict[int, int]:
        """What is there now, by the broker's word: it costs 1 ms, and only a reader pays who has less at hand than it asks for."""
        tips = self._topic.tips(list(after))
        for number, tip in tips.items():
            if tip < after[number]:
                raise LogLost(
                    f"Shard {number} of the log ends at {tip}; it was read up to {after[number]} before.", mend=_MEND
                )
        return tips

    def _fetch(self, tips: Mapping[int, int], count: int) -> None:
        """Until every shard has `count` records at hand, or all up to its tip."""
        consumer, until = self._consumer, time.monotonic() + PATIENCE_S
        if consumer is None:
            raise ContractViolation("A Kafka reader fetches before it has begun.")
        while any(len(shard.offsets) < count and shard.fetched < tips[n] for n, shard in self._shards.items()):
            found = consumer.consume(_PAGE, 0)
            if not found:
                first = consumer.poll(max(0.0, until - time.monotonic()))
                if first is None:
                    raise DependencyUnavailable(
                        f"The event log in Kafka holds records that it did not give out in {PATIENCE_S:.0f} s.",
                        mend="Look at the broker's log.",
                    )
                found = [first]
            self._sort(found)
            until = time.monotonic() + PATIENCE_S

    def _sort(self, found: Sequence[Message]) -> None:
        for message in found:
            shard, offset = self._shards[message.partition()], message.offset()
            if message.error() is None:
                shard.fetched = offset + 1
                shard.offsets.append(shard.fetched)
                shard.logged_ms.append(message.timestamp()[1])
                shard.payloads.append(message.value() or b"")
            else:
                self._mark(message)

    def _mark(self, message: Message) -> None:
        """What a shard's partition has to say beside records: where it ends now, or that it has failed."""
        error, number, offset = message.error(), message.partition(), message.offset()
        if error is None or number is None or offset is None:
            raise ContractViolation(f"Kafka gave out a message without a place: {message!r}.")
        if error.code() == KafkaError._PARTITION_EOF:
            self._shards[number].fetched = max(self._shards[number].fetched, offset)
        elif error.code() in _TRIMMED:
            raise LogLost(
                f"Shard {number} of the log no longer holds {self._shards[number].fetched + 1}, which is the next to read.",
                mend=_MEND,
            )
        else:
            raise unavailable("cannot be read", error)
