"""kafka_topic: the topic behind a log: made or refused, its ends, its trimming; every call waits for the broker."""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec, TopicDescription

from infra.contracts.errors import DependencyUnavailable, OperatorError
from infra.contracts.events import SHARDS
from infra.eventlog.protocol import Extent, Term, Terms

PATIENCE_S = 5.0
"""How long one question to the broker may take."""

_MADE_WITH = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",  # what goes is trimmed by headgate, once the archive has it
    "retention.bytes": "-1",
    "message.timestamp.type": "LogAppendTime",  # when the log took it, by the log's clock
}
_ABSENT = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
_MOVING = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
)
"""What is said for a moment after a topic was made, or its leader changed."""

_POLL_S = 0.05
_DESCRIBE_EVERY_S = 1.0
_NO_ID = "A" * 22
"""What a broker tells that knows no ids: 16 bytes of 0."""


class Topic:
    """One topic of SHARDS partitions: the record of shard s at Kafka's offset k is the log's offset k + 1 of shard s."""

    def __init__(self, config: dict[str, str | int | bool], name: str) -> None:
        """config: librdkafka's, with what every client of the log is given."""
        self.name = name
        self._config = config
        self._client: AdminClient | None = None
        self._terms: Terms = ()
        self._described_at_s = float("-inf")

    def require(self) -> None:
        """Make it where it is absent. Raises OperatorError where it has another number of partitions; DependencyUnavailable."""
        seen = self._partitions()
        if not seen:
            self._make()
            until = time.monotonic() + PATIENCE_S
            while not (seen := self._partitions()) and time.monotonic() < until:
                time.sleep(_POLL_S)  # a broker hears of it a moment after the controller
        if seen != SHARDS:
            raise OperatorError(
                f"Kafka's topic {self.name} has {seen} partitions; wanted are {SHARDS}, one a shard.",
                mend=f"Delete the topic if nobody needs it (headgate makes it anew), or make it with {SHARDS} partitions.",
            )

    def extents(self, shards: Sequence[int]) -> dict[int, Extent]:
        """What each shard holds; what a transaction has not yet committed is not there yet."""
        earliest = self._list(shards, OffsetSpec.earliest())
        latest = self._list(shards, OffsetSpec.latest())
        terms = self.terms()
        return {shard: Extent(earliest[shard] + 1, latest[shard], terms) for shard in shards}

    def terms(self) -> Terms:
        """The topic's id, which a topic of the same name that is made anew does not have; as of the last second. Empty where the
        broker tells none (before Kafka 2.8)."""
        if time.monotonic() - self._described_at_s > _DESCRIBE_EVERY_S:
            self._partitions()
        return self._terms

    def tips(self, shards: Sequence[int]) -> dict[int, int]:
        """The extents' tips alone: half the questions."""
        return self._list(shards, OffsetSpec.latest())

    def offset_before(self, shard: int, moment_ms: int) -> int:
        """The highest offset that was logged before a moment, Unix milliseconds; first - 1 where all that is kept is later."""
        found = self._list([shard], OffsetSpec.for_timestamp(moment_ms))[shard]
        return found if found >= 0 else self.tips([shard])[shard]  # Kafka's first at or after it; -1: none is

    def trim(self, shard: int, *, upto: int) -> None:
        """Drop the records with offset <= upto."""
        extent = self.extents([shard])[shard]
        if upto < extent.first:
            return
        place = TopicPartition(self.name, shard, min(upto, extent.tip))
        (asked,) = self._admin().delete_records([place], request_timeout=PATIENCE_S).values()
        try:
            asked.result()
        except KafkaException as error:
            raise unavailable("was not trimmed", error) from error

    def _list(self, shards: Sequence[int], spec: OffsetSpec) -> dict[int, int]:
        """Kafka's offset of each shard; asked again while a partition's leader is being found."""
        until = time.monotonic() + PATIENCE_S
        places = {TopicPartition(self.name, shard): spec for shard in shards}
        while True:
            asked = self._admin().list_offsets(
                places, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=PATIENCE_S
            )
            try:
                return {place.partition: future.result().offset for place, future in asked.items()}
            except KafkaException as error:
                if error.args[0].code() not in _MOVING or time.monotonic() > until:
                    raise unavailable("does not answer", error) from error
            time.sleep(_POLL_S)

    def _partitions(self) -> int:
        """How many it has; 0 where there is no such topic. Notes its id."""
        asked = self._admin().describe_topics(TopicCollection([self.name]), request_timeout=PATIENCE_S)[self.name]
        try:
            found: TopicDescription = asked.result()
        except KafkaException as error:
            if error.args[0].code() in _ABSENT:
                return 0
            raise unavailable("does not answer", error) from error
        name = str(found.topic_id)
        self._terms = () if name == _NO_ID else (Term(name, 1),)
        self._described_at_s = time.monotonic()
        return len(found.partitions)

    def _make(self) -> None:
        wanted = NewTopic(self.name, num_partitions=SHARDS, replication_factor=-1, config=_MADE_WITH)
        asked = self._admin().create_topics([wanted], request_timeout=PATIENCE_S)[self.name]
        try:
            asked.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process made it just now
                raise unavailable(f"did not make the topic {self.name}", error) from error

    def _admin(self) -> AdminClient:
        if self._client is None:
            try:
                self._client = AdminClient(self._config)
            except KafkaException as error:
                raise OperatorError(
                    f"librdkafka does not take its options: {error.args[0].str()}.",
                    mend="Look at HEADGATE_KAFKA_CONFIG.",
                ) from error
        return self._client


def unavailable(failed: str, error: KafkaException | KafkaError, *, mend: str = "") -> DependencyUnavailable:
    """What Kafka said, as the house's error."""
    said = error.args[0] if isinstance(error, KafkaException) else error
    return DependencyUnavailable(
        f"The event log in Kafka {failed}: {said.str().rstrip('.')}.",
        mend=mend or "Look whether the broker of HEADGATE_KAFKA_BOOTSTRAP runs (here: make kafka-up).",
    )
