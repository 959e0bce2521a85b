"""decision_archive: answers with all that they were made of, as Parquet on the store, for ever; written before the log drops them.

A file holds one stretch of the log and is called by it, below the day of its first answer (UTC):
`decisions/day=2026-11-25/1795600000000-000000_1795600059000-000003.parquet` holds all entries between these two positions. Files
never change and appear whole or not at all. Two archivers may write stretches that overlap; whoever reads takes each position
once. Within a file rows go by request id, so that a search for one reads the footer and one row group's ids of each file. The
footer also says how many answers were dropped by the log before they could be archived.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from infra.contracts.errors import ContractViolation, DependencyUnavailable
from infra.eventlog.decisions import BEGINNING, LoggedDecision, RedisDecisionLog
from infra.nearline.decision_numbers import NOTHING, Tally
from infra.resilience.complaints import Complaints
from infra.snapshots.storage import Storage

SCHEMA = pa.schema(
    [
        pa.field("position", pa.string(), nullable=False),  # <milliseconds>-<number>, by the log's clock
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("at_us", pa.int64(), nullable=False),  # when the answer was begun
        pa.field("version", pa.string(), nullable=False),
        pa.field("generation", pa.int64(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("decided_by", pa.string(), nullable=False),
        pa.field("degraded", pa.bool_(), nullable=False),
        pa.field("document", pa.binary(), nullable=False),
        pa.field("features", pa.binary(), nullable=False),
    ]
)
"""A row an answer. document, features: the entry's bytes as the log had them; the other columns are for people and queries."""

FOLDER = "decisions"

_log = logging.getLogger("headgate.nearline")

_NAME = re.compile(r"(\d+-\d+)_(\d+-\d+)\.parquet")
_ENCODED = ["version", "arm", "decided_by"]
_ROW_GROUP = 1000
_PAGE = 500
_LOOK_EVERY_S = 0.5

Place = tuple[int, int]
"""A position as numbers, which compare as positions do."""


@dataclass(frozen=True, slots=True)
class Span:
    """What a reader takes of one file: the entries with after < position <= last; all of them have position >= first."""

    path: str
    first: Place
    last: Place
    after: Place


def place_of(position: str) -> Place:
    """`1795600000000-3` -> (1795600000000, 3)."""
    milliseconds, _, number = position.partition("-")
    return int(milliseconds), int(number)


def spans(archive: Storage, *, since: datetime | None = None, until: datetime | None = None) -> list[Span]:
    """The files that together hold each entry that was logged from `since` up to before `until` once, oldest first."""
    named: list[tuple[Place, Place, str]] = []
    for folder in _days(archive, since=since, until=until):
        for name in archive.names(folder):
            if match := _NAME.fullmatch(name):
                named.append((place_of(match[1]), place_of(match[2]), f"{folder}/{name}"))
    low = int(since.timestamp() * 1000) if since is not None else 0
    found: list[Span] = []
    end: Place = (0, 0)
    for first, last, path in sorted(named, key=lambda row: (row[0], (-row[1][0], -row[1][1]))):
        begun = until is None or first[0] < until.timestamp() * 1000
        if last > end and last[0] >= low and begun:
            found.append(Span(path, first, last, end))
        end = max(end, last)
    return found


def end_of(archive: Storage) -> str:
    """The position up to which the archive has the log; BEGINNING where it has nothing."""
    newest = _newest(archive)
    return newest[0] if newest is not None else BEGINNING


def tally_of(archive: Storage) -> Tally:
    """Up to which number the archive has the log, and how many answers it lacks."""
    newest = _newest(archive)
    if newest is None:
        return NOTHING
    with archive.open(newest[1]) as file:
        return Tally.of(pq.read_schema(file).metadata or {})


def _newest(archive: Storage) -> tuple[str, str] | None:
    """The position of the archive's last entry, and the file that holds it."""
    for folder in reversed(
        _days(archive)
    ):  # a file of an earlier day ends before the day after its own begins to be written
        lasts = [(place_of(match[2]), name) for name in archive.names(folder) if (match := _NAME.fullmatch(name))]
        if lasts:
            (milliseconds, number), name = max(lasts)
            return f"{milliseconds}-{number}", f"{folder}/{name}"
    return None


def read_decisions(
    archive: Storage, *, since: datetime | None = None, until: datetime | None = None
) -> Iterator[LoggedDecision]:
    """The answers that were logged from `since` up to before `until`, in their order, file by file."""
    low = since.timestamp() * 1000 if since is not None else 0.0
    high = until.timestamp() * 1000 if until is not None else float("inf")
    for span in spans(archive, since=since, until=until):
        for entry in read_span(archive, span):
            if low <= place_of(entry.position)[0] < high:
                yield entry


def read_span(archive: Storage, span: Span) -> list[LoggedDecision]:
    """One file's part, in order."""
    with archive.open(span.path) as file:
        rows = _entries(pq.read_table(file, columns=["position", "document", "features"]))
    chosen = [(place, entry) for entry in rows if (place := place_of(entry.position)) > span.after]
    return [entry for _, entry in sorted(chosen, key=lambda row: row[0])]


def find(
    archive: Storage, request_id: str, *, since: datetime | None = None, until: datetime | None = None
) -> LoggedDecision | None:
    """The newest answer of that request id; None where there is none.

    Goes from the newest file to the oldest; of each it reads the footer and the ids of the one row group whose range takes the
    id in: some 50 KB a file, whatever the answers weigh.
    """
    wanted = [("request_id", "=", request_id)]
    for span in reversed(spans(archive, since=since, until=until)):
        with archive.open(span.path) as file:
            parquet = pq.ParquetFile(file)
            groups = [group for group in range(parquet.num_row_groups) if _may_hold(parquet, group, request_id)]
            for group in groups:
                if pc.any(pc.equal(parquet.read_row_group(group, ["request_id"])["request_id"], request_id)).as_py():
                    file.seek(0)
                    rows = pq.read_table(file, columns=["position", "document", "features"], filters=wanted)
                    return max(_entries(rows), key=lambda entry: place_of(entry.position))
    return None


class DecisionArchiver:
    """Copies the log of answers to the archive and drops there what is archived. Killed at any moment, or run twice, it loses
    nothing and doubles nothing."""

    def __init__(self, log: RedisDecisionLog, archive: Storage, *, records: int, seconds: float) -> None:
        """records, seconds: a file is written once so many answers wait, or one has waited for so long."""
        self._log = log
        self._archive = archive
        self._records = records
        self._seconds = seconds
        self._held: list[LoggedDecision] = []
        self._held_since_s = 0.0
        self._end: str | None = None
        self._complaints = Complaints(_log)

    async def run(self, stop: asyncio.Event) -> None:
        """Archive until `stop` is set. Waits while Redis or the store is away."""
        while not stop.is_set():
            try:
                await self.once()
            except (DependencyUnavailable, OSError) as error:
                self._complaints.note("away", f"Answers are not archived: {error}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), min(_LOOK_EVERY_S, self._seconds))

    async def once(self, *, at_once: bool = False) -> int:
        """Write what is due, or with `at_once` all that the log has. Returns how many answers.

        Raises DependencyUnavailable, OSError; what is held then is written the next time.
        """
        written = 0
        while True:
            is_all = await self._fill()
            waited_s = time.monotonic() - self._held_since_s
            is_due = len(self._held) >= self._records or at_once or waited_s >= self._seconds
            if not self._held or not is_due:
                return written
            written += await asyncio.to_thread(self._write)
            if self._end is not None:
                await self._log.trim(upto=self._end)
            if is_all:
                return written

    async def _fill(self) -> bool:
        """Read on until enough is held. Whether that is all there is."""
        if self._end is None:
            self._end = await asyncio.to_thread(end_of, self._archive)
        while len(self._held) < self._records:
            after = self._held[-1].position if self._held else self._end
            wanted = min(_PAGE, self._records - len(self._held))
            page = await self._log.read(after=after, count=wanted)
            if page and not self._held:
                self._held_since_s = time.monotonic()
            self._held += page
            if len(page) < wanted:
                return True
        return False

    def _write(self) -> int:
        """Write what is held and no other archiver has written meanwhile: where another has dropped entries from the log before
        they were read here, its file was there first."""
        end = place_of(end_of(self._archive))
        fresh = [entry for entry in self._held if place_of(entry.position) > end]
        if fresh:
            known = tally_of(self._archive)
            tally = known.after(entry.number for entry in fresh)
            self._archive.create(_path(fresh), _parquet(fresh, tally))
            if lacking := tally.dropped - known.dropped:
                _log.error(
                    "DROPPED: the log kept too few answers: %d are gone that were not archived, %d in all. "
                    "Raise HEADGATE_DECISIONS_KEPT, or see why they are archived late.",
                    lacking,
                    tally.dropped,
                )
        self._end = self._held[-1].position if fresh else end_of(self._archive)
        self._held = []
        return len(fresh)


def _entries(rows: pa.Table) -> list[LoggedDecision]:
    columns = (rows[name].to_pylist() for name in ("position", "document", "features"))
    return [LoggedDecision(*row) for row in zip(*columns, strict=True)]


def _may_hold(parquet: pq.ParquetFile, group: int, request_id: str) -> bool:
    at = parquet.schema_arrow.names.index("request_id")
    statistics = parquet.metadata.row_group(group).column(at).statistics
    if statistics is None or not statistics.has_min_max:
        return True
    return bool(statistics.min <= request_id <= statistics.max)


def _parquet(entries: Sequence[LoggedDecision], tally: Tally = NOTHING) -> bytes:
    rows = sorted((_row(entry) for entry in entries), key=lambda row: str(row["request_id"]))
    table = pa.Table.from_pylist(rows, schema=SCHEMA).replace_schema_metadata(tally.metadata)
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd", use_dictionary=_ENCODED, row_group_size=_ROW_GROUP)
    return content.getvalue()


def _row(entry: LoggedDecision) -> dict[str, object]:
    """An entry that this release cannot read is kept as it is, under no request id."""
    row: dict[str, object] = {"position": entry.position, "document": entry.document, "features": entry.features}
    try:
        decision = entry.decision()
    except ContractViolation:
        nothing = dict.fromkeys(("request_id", "user_id", "version", "arm", "decided_by"), "")
        return row | nothing | {"at_us": place_of(entry.position)[0] * 1000, "generation": 0, "degraded": False}
    return row | {
        "request_id": decision.request_id,
        "user_id": decision.user_id,
        "at_us": decision.basis.now_us,
        "version": decision.version,
        "generation": decision.generation,
        "arm": decision.arm.value,
        "decided_by": decision.decided_by,
        "degraded": decision.degraded,
    }


def _path(entries: Sequence[LoggedDecision]) -> str:
    first, last = place_of(entries[0].position), place_of(entries[-1].position)
    day = datetime.fromtimestamp(first[0] / 1000, UTC)
    return f"{FOLDER}/day={day:%Y-%m-%d}/{first[0]:013d}-{first[1]:06d}_{last[0]:013d}-{last[1]:06d}.parquet"


def _days(archive: Storage, *, since: datetime | None = None, until: datetime | None = None) -> list[str]:
    """The folders whose files may hold something of that time, rising; a file may reach into the day after its own."""
    low = f"day={(since - timedelta(days=1)).astimezone(UTC):%Y-%m-%d}" if since is not None else ""
    high = f"day={until.astimezone(UTC):%Y-%m-%d}" if until is not None else "day=~"
    return [f"{FOLDER}/{name}" for name in archive.names(FOLDER) if low <= name <= high and name.startswith("day=")]
