"""archive: the log's records as Parquet on the store, for ever: written before they are trimmed, read again by every replay.

A file holds one stretch of one shard and is called by it: `shard=07/000000000001-000000000400.parquet` holds all records with
1 <= offset <= 400. The names alone say where the archive ends. Files never change and appear whole or not at all. Two archivers
may write stretches that overlap; whoever reads takes each offset once. A stretch that was lost before it was archived is a
file without rows, called `...-....lost.parquet`, so that a loss is never taken for silence. A file's footer says in which of the
log's terms its last record was read (`eventlog.terms`).
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import re
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from infra.contracts.errors import ContractViolation, DependencyUnavailable
from infra.contracts.events import SHARDS
from infra.contracts.ids import ApplicationName
from infra.eventlog import records as wire
from infra.eventlog.protocol import EventLog, Slice
from infra.eventlog.terms import Read, require_same
from infra.resilience.complaints import Complaints
from infra.snapshots.storage import Storage

SCHEMA = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("logged_ms", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("entity_id", pa.string(), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("event_time_us", pa.int64(), nullable=False),
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("values", pa.string(), nullable=False),
        pa.field("payload", pa.binary(), nullable=False),
    ]
)
"""A row a record. values: JSON, for people and queries; payload: the record's bytes as the log had them, which replays count."""

_log = logging.getLogger("headgate.nearline")

_NAME = re.compile(r"(\d{12})-(\d{12})(\.lost)?\.parquet")
_PAGE = 2_000
_LOOK_EVERY_S = 0.5
_ENCODED = ["kind", "event_type"]
_TERM = b"term"


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a reader takes of one file: the records with after < offset <= upto. lost: nobody has them any more."""

    shard: int
    path: str
    after: int
    upto: int
    lost: bool


def archive_of(store: str, application: ApplicationName) -> Storage:
    """Where an application's archive lies."""
    return Storage(store).below(f"{application}/archive")


def stretches(archive: Storage, shard: int, *, after: int = 0, upto: int | None = None) -> list[Stretch]:
    """The files that together hold each offset beyond `after` (up to `upto`, if given) once, in their order.

    A file that begins beyond a gap is left out: the archive ends before the gap.
    """
    folder = _folder(shard)
    named = [(name, match) for name in archive.names(folder) if (match := _NAME.fullmatch(name))]
    spans = sorted((int(match[1]), -int(match[2]), match[3] is not None, name) for name, match in named)
    found, end = [], 0
    for first, minus_last, lost, name in spans:
        if first > end + 1:
            break
        last = -minus_last
        low, high = max(end, after), last if upto is None else min(last, upto)
        if low < high:
            found.append(Stretch(shard, f"{folder}/{name}", low, high, lost))
        end = max(end, last)
    return found


def end_of(archive: Storage, shard: int) -> int:
    """The offset up to which the archive has the shard, 0: nothing of it."""
    found = stretches(archive, shard)
    return found[-1].upto if found else 0


def read_upto(archive: Storage, shard: int) -> Read:
    """How far the archive has the shard, and in which term its last record was read; a loss is of no term."""
    found = stretches(archive, shard)
    for stretch in reversed(found):
        if not stretch.lost:
            with archive.open(stretch.path) as file:
                said = pq.read_schema(file).metadata or {}
            return Read(found[-1].upto, said.get(_TERM, b"").decode())
    return Read(found[-1].upto if found else 0, "")


def stretches_since(archive: Storage, shard: int, since: datetime, *, horizon: int) -> list[Stretch]:
    """Those that hold what was logged from a moment (aware) on, and the `horizon` offsets before it, where its duplicates may lie.

    Found by bisection over the files' footers, for time rises with the offset.
    """
    found = stretches(archive, shard)
    first = bisect_left(found, since.timestamp() * 1000, key=lambda one: _last_logged_ms(archive, one))
    return [one for one in found if first < len(found) and one.upto > found[first].after - horizon]


def _last_logged_ms(archive: Storage, stretch: Stretch) -> int:
    """Far in the future for a stretch without records: then rather too much is read than too little."""
    with archive.open(stretch.path) as file:
        parquet = pq.ParquetFile(file)
        at = parquet.schema_arrow.names.index("logged_ms")
        groups = [parquet.metadata.row_group(group) for group in range(parquet.num_row_groups)]
        return max((group.column(at).statistics.max for group in groups if group.num_rows), default=2**62)


def begins_after(archive: Storage, shard: int, since: datetime | None, *, horizon: int) -> int:
    """The offset behind which `stretches_since` begin; the archive's end where there are none; 0 for None, the whole archive."""
    if since is None:
        return 0
    found = stretches_since(archive, shard, since, horizon=horizon)
    return found[0].after if found else end_of(archive, shard)


def read_archive(archive: Storage, shard: int, *, after: int, upto: int) -> Iterator[Slice]:
    """The shard's records with after < offset <= upto, file by file.

    Raises ContractViolation where the archive ends before `upto`.
    """
    if after >= upto:
        return
    found = stretches(archive, shard, after=after, upto=upto)
    end = found[-1].upto if found else min(after, end_of(archive, shard))
    if end < upto:
        raise ContractViolation(
            f"The archive {archive.uri(_folder(shard))} ends at offset {end}; wanted are records up to {upto}.",
            mend="Run: python -m infra.nearline archive",
        )
    for stretch in found:
        yield read_stretch(archive, stretch)


def read_stretch(archive: Storage, stretch: Stretch) -> Slice:
    """One file's part."""
    columns = ["offset", "logged_ms", "payload"]
    with archive.open(stretch.path) as file:
        rows = pq.read_table(
            file, columns=columns, filters=[("offset", ">", stretch.after), ("offset", "<=", stretch.upto)]
        )
    offsets, logged_ms, payloads = (rows.column(name).to_pylist() for name in columns)
    return Slice(stretch.shard, stretch.after, stretch.upto, offsets, logged_ms, payloads)


def write_lost(archive: Storage, shard: int, *, after: int, upto: int, reason: str) -> None:
    """Say for ever that the records with after < offset <= upto are gone, so that the archive goes on behind them."""
    content = _parquet(SCHEMA.empty_table().replace_schema_metadata({"reason": reason}))
    archive.create(_path(shard, after, upto, lost=True), content)


class Archiver:
    """Copies the log to the archive. Killed at any moment, or run twice, it loses nothing and doubles nothing."""

    def __init__(self, log: EventLog, archive: Storage, *, records: int, seconds: float) -> None:
        """log: for this archiver alone. records, seconds: a shard is written when so many wait, or one waits for so long."""
        self._log = log
        self._archive = archive
        self._records = records
        self._seconds = seconds
        self._waiting_since_s: dict[int, float] = {}
        self._terms: dict[int, str] = {}
        self._complaints = Complaints(_log)
        self.ends: dict[int, int] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Archive until `stop` is set. Waits while the log or the store is away.

        Raises LogLost where the log no longer has what is to be archived, or what is.
        """
        while not stop.is_set():
            try:
                await self.once()
            except DependencyUnavailable as error:
                self._complaints.note("away", str(error))
            except OSError as error:
                self._complaints.note(
                    "store", f"The archive cannot be written: {error}. The log keeps what waits for it."
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), min(_LOOK_EVERY_S, self._seconds))

    async def once(self, *, at_once: bool = False) -> int:
        """Write the shards that are due, or with `at_once` all that the log has. Returns how many records."""
        extents = await self._log.extents(range(SHARDS))
        written = 0
        for shard, extent in extents.items():
            if shard not in self.ends:
                self.ends[shard] = await asyncio.to_thread(end_of, self._archive, shard)
            waiting = extent.tip - self.ends[shard]
            since_s = self._waiting_since_s.setdefault(shard, time.monotonic())
            if waiting == 0:
                del self._waiting_since_s[shard]
            elif at_once or not 0 < waiting < self._records or time.monotonic() - since_s >= self._seconds:
                written += await self.catch_up(shard, extent.tip)
                del self._waiting_since_s[shard]
        return written

    async def catch_up(self, shard: int, tip: int) -> int:
        """Write a shard up to the tip, a file each `records`, from where the archive ends now, whoever wrote that."""
        self.ends[shard], self._terms[shard] = await asyncio.to_thread(read_upto, self._archive, shard)
        written = 0
        while self.ends[shard] != tip:
            pages = await self._read(shard)
            if not pages:
                break
            rows = await asyncio.to_thread(self._write, shard, pages)
            self.ends[shard] = pages[-1].upto
            written += rows
            if pages[-1].upto >= tip:
                break
        return written

    async def _read(self, shard: int) -> list[Slice]:
        pages: list[Slice] = []
        after, rows = self.ends[shard], 0
        while rows < self._records:
            found = await self._log.read({shard: after}, count=min(_PAGE, self._records - rows))
            if not found:
                break
            self._terms[shard] = require_same(shard, found[0].terms, Read(after, self._terms[shard]))
            pages += found
            after, rows = found[0].upto, rows + len(found[0].payloads)
        return pages

    def _write(self, shard: int, pages: Sequence[Slice]) -> int:
        table = pa.concat_tables(_table(page) for page in pages)
        table = table.replace_schema_metadata({_TERM: self._terms[shard]})
        self._archive.create(_path(shard, pages[0].after, pages[-1].upto), _parquet(table))
        return cast(int, table.num_rows)


def _table(page: Slice) -> pa.Table:
    records = wire.decode(page.payloads)
    encoder = msgspec.json.Encoder()
    columns: dict[str, object] = {
        "offset": page.offsets,
        "logged_ms": page.logged_ms,
        "kind": [record.kind for record in records],
        "entity_id": [record.entity_id for record in records],
        "event_type": [record.event_type for record in records],
        "event_time_us": [record.event_time_us for record in records],
        "event_id": [record.event_id for record in records],
        "values": [encoder.encode(record.values).decode() for record in records],
        "payload": page.payloads,
    }
    return pa.table({name: pa.array(column, SCHEMA.field(name).type) for name, column in columns.items()}, SCHEMA)


def _parquet(table: pa.Table) -> bytes:
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd", use_dictionary=_ENCODED)
    return content.getvalue()


def _folder(shard: int) -> str:
    return f"shard={shard:02d}"


def _path(shard: int, after: int, upto: int, *, lost: bool = False) -> str:
    return f"{_folder(shard)}/{after + 1:012d}-{upto:012d}{'.lost' if lost else ''}.parquet"
