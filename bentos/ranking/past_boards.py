"""past_boards: the boards that answers were made with, from the archive alone."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bentos.ranking.query import PLAN
from infra.contracts.decisions import Basis
from infra.contracts.events import SHARDS, Record, shard_of
from infra.contracts.features import BOARD, Aggregation, Deltas
from infra.eventlog import records as wire
from infra.nearline.archive import begins_after, end_of, read_archive, stretches
from infra.nearline.boards import NO_BOARD, Board, ShardBoard, merged_board
from infra.nearline.counting import Duplicates
from infra.snapshots.storage import Storage

_KIND = "item"
_BOARDS = PLAN.of(_KIND, boards=True)
_STANDING = pa.array(
    sorted({name for spec in _BOARDS if spec.aggregation is Aggregation.STANDING for name in spec.events})
)
_KEPT = 64
"""Boards that are remembered: answers of several processes use a few in turn."""


class PastBoards:
    """Boards by their offsets and moment. Asked for in the order of their moments, each event is counted once for all of them."""

    def __init__(self, archive: Storage, *, horizon: int, since: datetime | None = None) -> None:
        """horizon: offsets within which a record that was sent twice is found. since: what was logged before is not read, but for
        what may stand since then.
        """
        self._shards = [_PastShard(archive, shard, horizon=horizon, since=since) for shard in range(SHARDS)]
        self._made: dict[tuple[int, tuple[int, ...]], Board] = {}

    def at(self, basis: Basis) -> Board:
        """The board of an answer. Raises ContractViolation where the archive ends before."""
        if not basis.board_offsets:
            return NO_BOARD
        wanted = (basis.board_us, basis.board_offsets)
        made = self._made.get(wanted)
        if made is None:
            while len(self._made) >= _KEPT:
                self._made.pop(next(iter(self._made)))
            made = self._made[wanted] = self._make(*wanted)
        return made

    def _make(self, now_us: int, offsets: tuple[int, ...]) -> Board:
        states = [shard.states_at(offset) for shard, offset in zip(self._shards, offsets, strict=True)]
        boards = [state.get((_KIND, BOARD), {}) for state in states]
        lists = merged_board(PLAN, _KIND, [ShardBoard(0, board, {}) for board in boards], now_us).lists
        about: list[dict[str, dict[str, int]]] = [{} for _ in offsets]
        for name in {entity_id for pairs in lists.values() for entity_id, _ in pairs}:
            shard = shard_of(_KIND, name)
            about[shard][name] = states[shard].get((_KIND, name), {})
        shards = [ShardBoard(*parts) for parts in zip(offsets, boards, about, strict=True)]
        return merged_board(PLAN, _KIND, shards, now_us)


class _PastShard:
    """One shard's records about items, and the states of the items at some offset; going on is cheap, going back is not."""

    def __init__(self, archive: Storage, shard: int, *, horizon: int, since: datetime | None) -> None:
        self._archive = archive
        self._shard = shard
        self._duplicates = Duplicates(horizon)
        self._since, self._horizon = since, horizon
        self._read_upto: int | None = None
        self._offsets: list[int] = []
        self._records: list[Record] = []
        self._counted = 0
        self._states: Deltas = {}

    def states_at(self, upto: int) -> Deltas:
        """The states of all items and of their board after all records up to an offset."""
        self._read(upto)
        end = bisect_right(self._offsets, upto)
        if end < self._counted:
            self._counted, self._states = 0, {}
        PLAN.accumulate(self._records[self._counted : end], self._states)
        self._counted = end
        return self._states

    def _read(self, upto: int) -> None:
        if self._read_upto is None:
            self._read_upto = begins_after(self._archive, self._shard, self._since, horizon=self._horizon)
            self._take(_standing_upto(self._archive, self._shard, self._read_upto))
        if upto <= self._read_upto:
            return
        end = max(upto, end_of(self._archive, self._shard))
        for piece in read_archive(self._archive, self._shard, after=self._read_upto, upto=end):
            self._take(zip(piece.offsets, wire.decode(piece.payloads), strict=True))
            self._read_upto = piece.upto

    def _take(self, records: Iterable[tuple[int, Record]]) -> None:
        for offset, record in records:
            if record.kind == _KIND and PLAN.counts(record) and not self._duplicates.has(record, offset):
                self._offsets.append(offset)
                self._records.append(record)


def _standing_upto(archive: Storage, shard: int, upto: int) -> Iterator[tuple[int, Record]]:
    """What was said at any time and may stand still, offsets rising. Of files without any, one column is read."""
    for stretch in stretches(archive, shard, upto=upto):
        with archive.open(stretch.path) as file:
            parquet = pq.ParquetFile(file)
            wanted = pc.is_in(parquet.read(columns=["event_type"])["event_type"], value_set=_STANDING)
            if pc.any(wanted).as_py():
                rows = parquet.read(columns=["offset", "payload"]).filter(wanted)
                rows = rows.filter((pc.field("offset") > stretch.after) & (pc.field("offset") <= stretch.upto))
                yield from zip(rows["offset"].to_pylist(), wire.decode(rows["payload"].to_pylist()), strict=True)
