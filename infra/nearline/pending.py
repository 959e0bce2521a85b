"""pending: an entity's own last records, for a request that comes before the worker has counted them: read your writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import redis.asyncio
from redis.exceptions import RedisError

from infra.contracts.errors import DependencyUnavailable
from infra.contracts.events import Record, shard_of
from infra.contracts.features import FeaturePlan, merged
from infra.contracts.ids import ApplicationName
from infra.eventlog import records as wire
from infra.eventlog.protocol import Appended
from infra.eventlog.scripts import Script
from infra.nearline.state import state_of
from infra.snapshots import keys

KEPT = 64
"""Records kept of an entity; a request that finds more than so many uncounted ones takes the state without them."""

KEPT_S = 120
"""How far the worker may fall behind before what a user just did is no longer seen at once."""

READ = Script("""#!lua flags=no-writes
local found = {
  redis.call('HGET', KEYS[1], 'offset') or '0',
  redis.call('HGETALL', KEYS[2]),
  redis.call('LRANGE', KEYS[3], 0, -1),
  {},
}
if redis.call('EXISTS', KEYS[4], KEYS[5]) > 0 then
  for _, entry in ipairs(found[3]) do
    local at, payload = string.match(entry, '^(%d+) (.*)$')
    if tonumber(at) > tonumber(found[1]) then
      local record = cjson.decode(payload)
      local name = record[1] .. ':' .. record[2] .. ':' .. record[5]
      if redis.call('HEXISTS', KEYS[4], name) + redis.call('HEXISTS', KEYS[5], name) > 0 then
        table.insert(found[4], tonumber(at))
      end
    end
  end
end
for i = 6, #KEYS do found[i - 1] = redis.call('GET', KEYS[i]) end
return found
""")
# One script, for the worker moves offset and state between any two commands: what is read must be of one moment, or no replay
# could find it again. Where the log keeps what producers send twice, the worker's memory tells what it has counted already.


@dataclass(frozen=True, slots=True)
class Seen:
    """What was known of an entity at one moment.

    state: of all records up to `offset`, and of those at `pending` besides, which lie beyond it, rising. is_whole: False where
    there were so many that some may be missing; then the state is without any. pending_records: the records themselves, also
    where the state is without them. values: what else was asked for in the same script.
    """

    kind: str
    entity_id: str
    state: dict[str, int]
    offset: int
    pending: tuple[int, ...]
    is_whole: bool
    pending_records: tuple[Record, ...]
    values: tuple[bytes | None, ...]


class PendingRecords:
    """Writes them after the log's answer and reads them with the state."""

    def __init__(
        self, client: redis.asyncio.Redis, application: ApplicationName, plan: FeaturePlan, *, kinds: frozenset[str]
    ) -> None:
        """kinds: of entities whose records are kept."""
        self._client = client
        self._application = application
        self._plan = plan
        self._kinds = kinds

    async def note(self, records: Sequence[Record], appended: Sequence[Appended]) -> None:
        """Keep what the log has just taken. Raises DependencyUnavailable; the log has the records all the same."""
        pipe = self._client.pipeline(transaction=False)
        for record, place in zip(records, appended, strict=True):
            if record.kind in self._kinds and not place.duplicate:
                key = keys.pending(self._application, record.kind, record.entity_id)
                pipe.lpush(key, b"%d " % place.offset + wire.encode(record))
                pipe.ltrim(key, 0, KEPT - 1)
                pipe.expire(key, KEPT_S)
        if not len(pipe):
            return
        try:
            await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise DependencyUnavailable(f"Redis did not answer: {type(error).__name__}: {error}") from error

    def ask(self, pipe: Any, kind: str, entity_id: str, values: Sequence[str] = ()) -> None:
        """Add the read of an entity to a pipeline; its reply goes to `seen`. values: keys of the same shard to be read with it."""
        application = self._application
        shard = shard_of(kind, entity_id)
        position = keys.nearline_position(application, shard)
        state = keys.nearline_state(application, kind, entity_id)
        pending = keys.pending(application, kind, entity_id)
        halves = [keys.nearline_seen(application, shard, half) for half in (0, 1)]
        READ.call(pipe, [position, state, pending, *halves, *values])

    def seen(self, kind: str, entity_id: str, reply: Sequence[object]) -> Seen:
        """What that reply says."""
        offset = int(cast(bytes, reply[0]))
        flat = cast("list[bytes]", reply[1])
        state = state_of(dict(zip(flat[::2], flat[1::2], strict=True)))
        entries = [_entry(entry) for entry in cast("list[bytes]", reply[2])]
        fresh = sorted(entry for entry in entries if entry[0] > offset)
        is_whole = len(fresh) < KEPT
        sent_twice = set(cast("list[int]", reply[3]))
        fresh = [entry for entry in fresh if entry[0] not in sent_twice]
        records = _first_of_each(zip((at for at, _ in fresh), wire.decode([raw for _, raw in fresh]), strict=True))
        if is_whole and records:
            state = self.with_records(kind, entity_id, state, records.values())
        return Seen(
            kind,
            entity_id,
            state,
            offset,
            tuple(records) if is_whole else (),
            is_whole,
            tuple(records.values()),
            tuple(cast("list[bytes | None]", list(reply[4:]))),
        )

    def with_records(
        self, kind: str, entity_id: str, state: Mapping[str, int], records: Iterable[Record]
    ) -> dict[str, int]:
        """The entity's state after those records of its own."""
        deltas: dict[tuple[str, str], dict[str, int]] = {}
        self._plan.accumulate(records, deltas)
        return merged(state, deltas.get((kind, entity_id), {}))


def _entry(entry: bytes) -> tuple[int, bytes]:
    offset, _, payload = entry.partition(b" ")
    return int(offset), payload


def _first_of_each(records: Iterable[tuple[int, Record]]) -> dict[int, Record]:
    """By offset, without those that a producer sent twice."""
    known: set[str] = set()
    out: dict[int, Record] = {}
    for offset, record in records:
        if record.duplicate_key not in known:
            known.add(record.duplicate_key)
            out[offset] = record
    return out
