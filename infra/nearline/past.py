"""past: what was known of an entity when an answer was made, from the archive alone: the same integers, whenever it is asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from infra.contracts.events import MAX_CLOCK_SKEW, Record, shard_of
from infra.contracts.features import BOARD, Deltas, FeaturePlan
from infra.eventlog import records as wire
from infra.nearline.archive import begins_after, end_of, read_archive
from infra.nearline.counting import Duplicates
from infra.snapshots.storage import Storage


@dataclass(slots=True)
class _Shard:
    """What was read of a shard. counted: those that are no duplicates, by entity, offsets rising; sent_twice: the others."""

    duplicates: Duplicates
    upto: int = 0
    counted: dict[tuple[str, str], list[tuple[int, Record]]] = field(default_factory=dict)
    sent_twice: dict[int, Record] = field(default_factory=dict)


class Past:
    """One application's archive, read once a shard and held in memory: for as many answers as one likes."""

    def __init__(self, archive: Storage, plan: FeaturePlan, *, horizon: int, since: datetime | None = None) -> None:
        """horizon: offsets within which the log, or the worker, found what was sent twice. since: what was logged before is not
        read; None: all is.
        """
        self._archive = archive
        self._plan = plan
        self._horizon = horizon
        self._since = since
        self._shards: dict[int, _Shard] = {}

    def state_at(self, entity: tuple[str, str], upto: Mapping[int, int], extra: Collection[int] = ()) -> dict[str, int]:
        """The state of (kind, id) after all records of its shard up to an offset, and those of its own at `extra` besides.

        upto: by shard, as the answer was logged. extra: offsets beyond it; the pending records that the answer saw. Raises
        ContractViolation where the archive does not hold them.
        """
        shard = shard_of(*entity)
        offset = upto[shard]
        known = self._known(shard, max([offset, *extra]))
        own = known.counted.get(entity, [])
        wanted = set(extra)
        records = [record for at, record in own if at <= offset or at in wanted]
        twice = [known.sent_twice[at] for at in wanted if at in known.sent_twice]
        records += [record for record in twice if (record.kind, record.entity_id) == entity]
        deltas: Deltas = {}
        self._plan.accumulate(records, deltas)
        return deltas.get(entity, {})

    def board_at(self, kind: str, shard: int, upto: int) -> dict[str, int]:
        """The state of a shard's board of a kind after all records up to an offset."""
        deltas: Deltas = {}
        for (of, _), own in self._known(shard, upto).counted.items():
            if of == kind:
                self._plan.accumulate((record for at, record in own if at <= upto), deltas)
        return deltas.get((kind, BOARD), {})

    def _known(self, shard: int, upto: int) -> _Shard:
        known = self._shards.get(shard)
        if known is None:
            after = begins_after(self._archive, shard, self._since, horizon=self._horizon)
            known = self._shards[shard] = _Shard(Duplicates(self._horizon), after)
        if upto <= known.upto:
            return known
        for piece in read_archive(self._archive, shard, after=known.upto, upto=max(upto, end_of(self._archive, shard))):
            for offset, record in zip(piece.offsets, wire.decode(piece.payloads), strict=True):
                if known.duplicates.has(record, offset):
                    known.sent_twice[offset] = record
                else:
                    own = known.counted.setdefault((record.kind, record.entity_id), [])
                    own.append((offset, record))
            known.upto = piece.upto
        return known


def reach_of(plan: FeaturePlan, moment: datetime) -> datetime:
    """What was logged before then counts in no feature at the moment or later: an event may be dated ahead by the clocks' skew."""
    return moment - max(plan.horizon(kind) for kind in plan.kinds()) - MAX_CLOCK_SKEW
