"""protocol: what a log of events does, and a log of lists shown, whatever keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from infra.contracts.errors import OperatorError
from infra.contracts.events import Record
from infra.contracts.exposures import Exposure


class LogLost(OperatorError):
    """The log no longer holds what a reader has yet to read, or holds less than it has read: events are gone."""


@dataclass(frozen=True, slots=True)
class Appended:
    """Where a record stands in its shard. duplicate: the log had it already, at this offset; nothing was written."""

    shard: int
    offset: int
    duplicate: bool


class Term(NamedTuple):
    """A part of a shard's life (see `terms`): its name, never used twice, and its first offset."""

    id: str
    first: int


Terms = tuple[Term, ...]
"""Of one shard, oldest first; the last is the one that it is in. Empty where the log tells none."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Records of one shard as they are read back, offsets rising.

    after, upto: the slice holds all records with after < offset <= upto. offsets, logged_ms, payloads: aligned, one entry a
    record; logged_ms: when the log took it, Unix milliseconds by the log's clock; payloads: as `records.encode` made them.
    terms: the shard's when it was read.
    """

    shard: int
    after: int
    upto: int
    offsets: Sequence[int]
    logged_ms: Sequence[int]
    payloads: Sequence[bytes]
    terms: Terms = ()


@dataclass(frozen=True, slots=True)
class Extent:
    """What a shard holds. first: the lowest offset that is kept, tip + 1 where none is. tip: the highest ever written, 0: none."""

    first: int
    tip: int
    terms: Terms = field(default=(), compare=False)


class EventLog(Protocol):
    """Shards of records, each ordered and durable; appended to by many and read by offset. Offsets begin at 1 and only rise.

    finds_duplicates: the log itself refuses a record whose `duplicate_key` one of the last `horizon` offsets of the shard has;
    where it does not, whoever reads must leave such records out, by the same rule.
    """

    finds_duplicates: bool

    async def append(self, records: Sequence[Record]) -> list[Appended]:
        """Take the records, in order within each shard. Returns one entry a record once all are durable.

        Raises DependencyUnavailable where it cannot be known that all were taken; sent again, those that were count once.
        """

    async def read(self, after: Mapping[int, int], *, count: int) -> list[Slice]:
        """For each shard up to `count` records behind an offset (0: from the beginning); shards without new ones are left out.

        Returns what is there now, at once. Raises LogLost where records behind the offset were trimmed, or the offset is
        beyond the tip; DependencyUnavailable.
        """

    async def extents(self, shards: Sequence[int]) -> dict[int, Extent]:
        """What each shard holds. Raises DependencyUnavailable."""

    async def offset_before(self, shard: int, moment: datetime) -> int:
        """The highest offset that was logged before a moment (aware); 0 where all of the shard is later."""

    async def trim(self, shard: int, *, upto: int) -> None:
        """Drop the records with offset <= upto; the log may keep some of them longer. Raises DependencyUnavailable."""

    async def close(self) -> None:
        """Let go of connections."""


@dataclass(frozen=True, slots=True)
class LoggedExposure:
    """A list as it is read back."""

    position: str
    exposure: Exposure


class ExposureLog(Protocol):
    """Ordered, appended to by many and read by position; the oldest lists go first."""

    async def append(self, exposures: Sequence[Exposure]) -> None:
        """Take all lists or none. Raises DependencyUnavailable; then none was taken, unless the answer alone was lost."""

    async def read(self, *, after: str, count: int) -> list[LoggedExposure]:
        """Up to `count` lists after a position ("0-0": from the beginning). Raises InvalidRequest, DependencyUnavailable."""
