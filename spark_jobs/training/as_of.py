"""as_of: the usual way to find out what a feature was: all events up to the moment, by event time. A control, for it is not exact.

What came late had happened before the answer and was not known to it; what a clock ahead of ours dates later was. Whoever joins
by event time teaches a model with values that it will not see.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.contracts.decisions import Decision
from infra.contracts.events import Record, shard_of
from infra.contracts.features import Deltas, FeaturePlan
from infra.eventlog import records as wire
from infra.nearline.archive import stretches_since
from infra.nearline.past import reach_of
from infra.nearline.pending import Seen
from infra.snapshots.storage import Storage

_COLUMNS = ["offset", "kind", "entity_id", "payload"]


class AsOf:
    """The events of some users, as the archive has them now."""

    def __init__(self, archive: Storage, plan: FeaturePlan, user_ids: Collection[str], *, since: datetime) -> None:
        """Reads the archive of the users' shards once, as far back as features at `since` or later look."""
        self._plan = plan
        self._events: dict[str, list[Record]] = {user_id: [] for user_id in user_ids}
        known: set[tuple[str, str]] = set()
        for shard in sorted({shard_of("user", user_id) for user_id in user_ids}):
            for stretch in stretches_since(archive, shard, reach_of(plan, since), horizon=0):
                with archive.open(stretch.path) as file:
                    rows = pq.read_table(file, columns=_COLUMNS, filters=[("kind", "=", "user")])
                inside = pc.and_(pc.greater(rows["offset"], stretch.after), pc.less_equal(rows["offset"], stretch.upto))
                ours = pc.is_in(rows["entity_id"], value_set=pa.array(list(user_ids), pa.string()))
                for record in wire.decode(rows.filter(pc.and_(inside, ours))["payload"].to_pylist()):
                    if (record.entity_id, record.event_id) not in known:
                        known.add((record.entity_id, record.event_id))
                        self._events[record.entity_id].append(record)

    def seen(self, decision: Decision) -> Seen | None:
        """What the stream would have known, had every event been known at once and nothing else counted."""
        basis = decision.basis
        if basis.offset is None:
            return None
        entity = ("user", str(decision.user_id))
        deltas: Deltas = {}
        past = (one for one in self._events[decision.user_id] if one.event_time_us <= basis.now_us)
        self._plan.accumulate(past, deltas)
        return Seen(*entity, deltas.get(entity, {}), basis.offset, (), True, (), ())
