"""counting: from a slice of the log to the changes of a shard's state: duplicates left out, the rest added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra.contracts.events import Record
from infra.contracts.features import Deltas, FeaturePlan
from infra.eventlog import records as wire
from infra.eventlog.protocol import Slice
from infra.nearline.state import Changes, StateStore


@dataclass(frozen=True, slots=True)
class Horizon:
    """A record is a duplicate where the same duplicate key occurs within so many offsets before it, in its shard."""

    offsets: int

    def half(self, offset: int) -> int:
        """Which of two halves remembers an offset; they take turns every `offsets` of them."""
        return offset // self.offsets % 2


class Duplicates:
    """Finds the duplicates among one shard's records, which it is shown in the order of their offsets."""

    def __init__(self, horizon: int, last: Mapping[str, int] | None = None) -> None:
        """last: where each duplicate key was last seen before."""
        self._horizon = horizon
        self.last: dict[str, int] = dict(last or {})

    def has(self, record: Record, offset: int) -> bool:
        """Whether the record's key was seen within the horizon before it; remembers it."""
        name = record.duplicate_key
        before = self.last.get(name)
        self.last[name] = offset
        return before is not None and offset - before <= self._horizon


def counted(piece: Slice, plan: FeaturePlan) -> Changes:
    """The changes of a slice of a log that finds duplicates itself."""
    deltas: Deltas = {}
    plan.accumulate(wire.decode(piece.payloads), deltas)
    return Changes(piece.after, piece.upto, deltas)


async def counted_once(piece: Slice, plan: FeaturePlan, store: StateStore, horizon: Horizon) -> Changes:
    """The changes of a slice of a log that keeps what producers send twice; what was seen is remembered in the same call.

    The slice must lie within one turn of the halves: see `within_one_half`.
    """
    records = wire.decode(piece.payloads)
    names = [record.duplicate_key for record in records]
    before = await store.seen(piece.shard, names) if names else []
    known = {name: offset for name, offset in zip(names, before, strict=True) if offset}
    duplicates = Duplicates(horizon.offsets, known)
    kept = [one for one, offset in zip(records, piece.offsets, strict=True) if not duplicates.has(one, offset)]
    deltas: Deltas = {}
    plan.accumulate(kept, deltas)
    half = horizon.half(piece.offsets[0]) if names else 0
    begins = bool(names) and horizon.half(piece.after) != half
    remembered = (begins, [part for name in dict.fromkeys(names) for part in (name, duplicates.last[name])])
    nothing: tuple[bool, Sequence[str | int]] = (False, ())
    return Changes(piece.after, piece.upto, deltas, seen=(remembered, nothing) if half == 0 else (nothing, remembered))


def within_one_half(piece: Slice, horizon: Horizon) -> list[Slice]:
    """The slice, cut where a half's turn begins, so that dropping what it held before is the first thing that happens then."""
    starts = [0]
    for number in range(1, len(piece.offsets)):
        if horizon.half(piece.offsets[number]) != horizon.half(piece.offsets[number - 1]):
            starts.append(number)
    ends = [*starts[1:], len(piece.offsets)]
    out = []
    after = piece.after
    for start, end in zip(starts, ends, strict=True):
        upto = piece.offsets[end - 1] if end < len(piece.offsets) else piece.upto
        chosen = slice(start, end)
        out.append(
            Slice(piece.shard, after, upto, piece.offsets[chosen], piece.logged_ms[chosen], piece.payloads[chosen])
        )
        after = upto
    return out
