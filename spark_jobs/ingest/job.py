"""job: the import: a source becomes one sealed dataset, or the store stays as it was.

One process and no Spark: a reject names its line, and lines are counted from the file's beginning; parsing by Arrow keeps up with
the disk, and what does not fit into memory (events by user) goes through buckets on the local disk.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from infra.config import console
from infra.contracts.errors import DataRefused, InvalidRequest, NotEnoughRoom
from infra.contracts.ids import ApplicationName, DatasetId
from infra.snapshots.storage import Storage
from spark_jobs.ingest import sealing, side, spill
from spark_jobs.ingest.indexer import Indexer
from spark_jobs.ingest.inputs import Advance, digest
from spark_jobs.ingest.parse import TIMELESS_START, Batch, batches
from spark_jobs.ingest.plan import Plan, make_plan
from spark_jobs.ingest.rejects import Rejects
from spark_jobs.ingest.rows import Reason
from spark_jobs.ingest.workplace import check_room, workplace

MOST_TYPES = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What a caller may say of an import. home: where this machine's work folders go."""

    application: ApplicationName
    source: str
    home: Path
    now: datetime
    format: str = "auto"
    mapping: Mapping[str, str] = field(default_factory=dict)
    max_rejected_fraction: float = 0.01


@dataclass(frozen=True, slots=True)
class Imported:
    """record: dataset.json. reused: the same source had been imported before, and nothing was written."""

    dataset: DatasetId
    record: dict[str, object]
    reused: bool
    rejects: str
    seconds: float


@dataclass(slots=True)
class _Draft:
    """What has been read so far."""

    users: Indexer
    items: Indexer
    types: Indexer
    rejects: Rejects
    rows: int = 0


def ingest(store: str, options: ImportOptions) -> Imported:
    """Import a source. Raises DataRefused (nothing was changed but the rejects file), NotEnoughRoom, InvalidRequest."""
    began = time.monotonic()
    if not 0 <= options.max_rejected_fraction <= 1:
        raise InvalidRequest(f"max_rejected_fraction is {options.max_rejected_fraction}; wanted 0 to 1.")
    plan = make_plan(options.source, format=options.format, mapping=options.mapping)
    if plan.unread and plan.format != "world":
        console.say(f"not read: {', '.join(plan.unread[:10])}{' and more' if len(plan.unread) > 10 else ''}")
    home = Storage(f"{store.rstrip('/')}/{options.application}")
    datasets = home.below("datasets")
    digests = _digests(plan)
    key = sealing.source_key(plan, digests)
    record = sealing.find(datasets, key)
    reused = record is not None
    if record is None:
        check_room(plan, options.home, home)
        try:
            with workplace(options.home) as folder:
                record = _import(plan, home, folder, options, key=key, digests=digests)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise NotEnoughRoom(f"The disk is full: {error}.", mend="Free some; nothing was imported.") from error
    dataset = DatasetId(str(record["dataset_id"]))
    rejects = datasets.uri(f"{dataset}/{sealing.REJECTS}")
    _judge(record, rejects, options.max_rejected_fraction)
    return Imported(dataset, record, reused, rejects, round(time.monotonic() - began, 2))


def _digests(plan: Plan) -> dict[str, str]:
    with console.progress("look at the source (bytes)", total=plan.size_bytes) as advance:
        return {table.file.name: digest(table.file, advance=advance) for table in plan.tables}


def _import(
    plan: Plan, home: Storage, folder: Path, options: ImportOptions, *, key: str, digests: Mapping[str, str]
) -> dict[str, object]:
    made = folder / "dataset"
    made.mkdir()
    with Rejects(made / sealing.REJECTS) as rejects, spill.Spill(folder / "spill") as spilled:
        draft = _Draft(
            Indexer("users"),
            Indexer("items"),
            Indexer("event types", most=MOST_TYPES, mend="The column mapped to `type` seems to be another: see --map."),
            rejects,
        )
        with console.progress("read (bytes)", total=plan.size_bytes) as advance:
            item_side, user_side = _read_side(plan, draft, options.now, advance)
            accepted = _read_events(plan, draft, spilled, options.now, advance)
        _refuse_changed(plan)
        if accepted:
            with console.progress("sort and write (events)", total=accepted) as advance:
                written = _write_events(plan, draft, spilled, made, advance)
        rejects.close()
        kept = home.uri(f"rejects/{key[:8]}.jsonl")
        try:
            if not accepted:
                raise DataRefused(_no_event(plan, draft), mend=f"See {kept}." if rejects.total else "Check --source.")
            record = _record(plan, draft, written, options, key=key, digests=digests)
            _judge(record, kept, options.max_rejected_fraction)
        except DataRefused:
            if rejects.total:
                sealing.put(home, f"rejects/{key[:8]}.jsonl", rejects.path)
            raise
    pq.write_table(item_side.table(draft.items.names(), written.first_event_us), made / "items.parquet")
    pq.write_table(user_side.table(draft.users.names(), written.n_events), made / "users.parquet")
    datasets = home.below("datasets")
    dataset = DatasetId(str(record["dataset_id"]))
    sealing.seal(datasets.below(dataset), made, record)
    return sealing.record_of(datasets, dataset)


def _read_side(plan: Plan, draft: _Draft, now: datetime, advance: Advance) -> tuple[side.Items, side.Users]:
    movies = plan.format == "movielens"
    items, n_items = side.read_items(plan.items, draft.items, draft.rejects, movies=movies, now=now, advance=advance)
    users, n_users = side.read_users(plan.users, draft.users, draft.rejects, movies=movies, advance=advance)
    draft.rows += n_items + n_users
    return items, users


def _read_events(plan: Plan, draft: _Draft, spilled: spill.Spill, now: datetime, advance: Advance) -> int:
    accepted = 0
    for batch in batches(plan, now=now, advance=advance):
        draft.rows += len(batch.rows) + len(batch.rows.faults)
        _reject(batch, draft.rejects)
        events = _numbered(batch, draft)
        spilled.add(events)
        accepted += len(events)
    return accepted


def _reject(batch: Batch, rejects: Rejects) -> None:
    rows = batch.rows
    for fault in rows.faults:
        rejects.add(rows.file, fault.line, fault.reason, fault.text)
    for at, reason in batch.clean.rejected:
        rejects.add(rows.file, int(rows.lines[at]), reason, rows.text(at))


def _numbered(batch: Batch, draft: _Draft) -> spill.Events:
    clean = batch.clean
    events = np.empty(len(clean.lines), spill.EVENT)
    events["user"] = draft.users.numbers(clean.user_ids)
    events["item"] = draft.items.numbers(clean.item_ids)
    events["type"] = draft.types.numbers(clean.event_types)
    events["time_us"], events["value"] = clean.times_us, clean.values
    events["file"], events["line"] = batch.file_number, clean.lines
    return events


def _write_events(plan: Plan, draft: _Draft, spilled: spill.Spill, made: Path, advance: Advance) -> spill.Written:
    users, items, types = draft.users.names(), draft.items.names(), draft.types.names()

    def refuse(events: spill.Events) -> None:
        for event in events:
            at = (_EPOCH + timedelta(microseconds=int(event["time_us"]))).isoformat()
            text = f"{users[event['user']]} {items[event['item']]} {types[event['type']]} {at}"
            name = plan.events[int(event["file"])].file.name
            draft.rejects.add(name, int(event["line"]), Reason.DUPLICATE, text)

    return spill.write_events(
        spilled, made, n_users=len(users), n_items=len(items), types=types, on_duplicates=refuse, advance=advance
    )


def _refuse_changed(plan: Plan) -> None:
    for table in plan.tables:
        file = table.file
        file.fs.invalidate_cache()
        size = int(file.fs.info(file.path)["size"])
        if size != file.size_bytes:
            raise DataRefused(
                f"{file.name} went from {file.size_bytes:,} to {size:,} bytes while it was read.",
                mend="Import it when nobody writes to it, or import a copy.",
            )


def _no_event(plan: Plan, draft: _Draft) -> str:
    if not draft.rejects.total:
        return f"{plan.source.url} holds no events."
    return f"{plan.source.url} holds no usable event: {_by_reason(draft.rejects.counts)}."


def _record(
    plan: Plan,
    draft: _Draft,
    written: spill.Written,
    options: ImportOptions,
    *,
    key: str,
    digests: Mapping[str, str],
) -> dict[str, object]:
    rejects = draft.rejects
    counts = zip(draft.types.names(), written.types.tolist(), strict=True)
    return {
        "dataset_id": sealing.dataset_id(key, written.last_us),
        "application": options.application,
        "created_at": options.now.isoformat(),
        "source": plan.source.url,
        "source_key": key,
        "source_files": [
            {
                "name": table.file.name,
                "bytes": table.file.size_bytes,
                "sha256": digests[table.file.name],
                "columns": table.fields,
            }
            for table in plan.tables
        ],
        "format": plan.format,
        "times": f"none in the data: one second apart from {TIMELESS_START.isoformat()}" if plan.timeless else "UTC",
        "counts": {
            "events": written.events,
            "users": len(draft.users),
            "items": len(draft.items),
            "rows": draft.rows,
            "rejected": dict(sorted(rejects.counts.items())),
        },
        "rejected_fraction": rejects.total / draft.rows,
        "first_event": (_EPOCH + timedelta(microseconds=written.first_us)).isoformat(),
        "last_event": (_EPOCH + timedelta(microseconds=written.last_us)).isoformat(),
        "event_types": {name: n for name, n in sorted(counts) if n},
        "oracle": plan.oracle,
    }


def _judge(record: Mapping[str, object], rejects: str, allowed: float) -> None:
    """Raise DataRefused where too many rows of the source are bad."""
    counts = record["counts"]
    if not isinstance(counts, dict):
        raise DataRefused("The dataset's record has no counts.", mend="Import it again.")
    rejected: dict[str, int] = counts["rejected"]
    total, rows = sum(rejected.values()), int(counts["rows"])
    if total > allowed * rows:
        raise DataRefused(
            f"{total:,} of {rows:,} rows ({total / rows:.2%}) were rejected, more than the {allowed:.2%} allowed: "
            f"{_by_reason(rejected)}. Nothing was imported.",
            mend=f"See {rejects} for each; mend the source or the --map, or raise --max-rejected-fraction.",
        )


def _by_reason(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in sorted(counts.items(), key=lambda pair: -pair[1]))
