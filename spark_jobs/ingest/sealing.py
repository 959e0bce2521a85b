"""sealing: a dataset's name, finding one that the same source has already become, and putting a new one in place.

A dataset is named for the moment of its last event and for its source: the bytes of the files and how they are read. Every file
of it follows from these alone, and is put whole; so a second importer of the same source, or a late one, writes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from infra.contracts.errors import DatasetNotFound
from infra.contracts.ids import DatasetId
from infra.snapshots.storage import Storage
from spark_jobs.ingest.plan import Plan
from spark_jobs.ingest.rows import Reason

IMPORT_EDITION = 1
"""Raise it with any change that makes other datasets of the same source."""

RECORD = "dataset.json"
REJECTS = "rejects.jsonl"

_STALE_AFTER_S = 3600.0
_DIGITS = 8


def source_key(plan: Plan, digests: Mapping[str, str]) -> str:
    """SHA-256 over what decides the dataset's content. digests: file name -> SHA-256."""
    tables = [
        [table.file.name, digests[table.file.name], table.kind, table.fields, table.default_type]
        for table in plan.tables
    ]
    said = [IMPORT_EDITION, plan.format, plan.timeless, tables]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def dataset_id(key: str, last_us: int) -> DatasetId:
    """Such as d-20240526T235959-1a2b3c4d."""
    last = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=last_us)
    return DatasetId(f"d-{last:%Y%m%dT%H%M%S}-{key[:_DIGITS]}")


def find(datasets: Storage, key: str) -> dict[str, object] | None:
    """The record of a sealed dataset of the same source, complete; None where there is none.

    One that rejected events of the future does not count: meanwhile they may have happened.
    """
    for name in datasets.names():
        if not name.endswith(f"-{key[:_DIGITS]}") or not datasets.exists(f"{name}/{RECORD}"):
            continue
        record: dict[str, object] = json.loads(datasets.read(f"{name}/{RECORD}"))
        files, counts = record.get("files"), record.get("counts")
        if record.get("source_key") != key or not isinstance(files, dict) or not isinstance(counts, dict):
            continue
        if Reason.FUTURE_TIME in counts["rejected"] or not all(datasets.exists(f"{name}/{file}") for file in files):
            continue
        return record
    return None


def record_of(datasets: Storage, dataset: DatasetId) -> dict[str, object]:
    """What dataset.json says; raises DatasetNotFound where the dataset was never sealed."""
    if not datasets.exists(f"{dataset}/{RECORD}"):
        raise DatasetNotFound(f"There is no dataset {datasets.uri(dataset)}.")
    return dict(json.loads(datasets.read(f"{dataset}/{RECORD}")))


def seal(target: Storage, made: Path, record: Mapping[str, object]) -> bool:
    """Put every file below `made`, then dataset.json; False where another importer sealed the same dataset first."""
    _remove_stale_drafts(target)
    files = sorted(path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file())
    for name in files:
        put(target, name, made / name)
    digests = {name: sha256(made / name) for name in files}
    content = json.dumps({**record, "files": digests}, indent=1, ensure_ascii=False).encode() + b"\n"
    return target.create(RECORD, content)


def put(target: Storage, name: str, path: Path) -> None:
    """Copy a local file into the store so that it is there whole or not at all."""
    full = target.full(name)
    if not target.is_local:
        target.fs.makedirs(os.path.dirname(full), exist_ok=True)
        target.fs.put_file(str(path), full)
        return
    folder = Path(full).parent
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{Path(full).name}.{uuid.uuid4().hex}.draft"
    try:
        with path.open("rb") as source, draft.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(full)
    finally:
        draft.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """The digest of a local file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_stale_drafts(target: Storage) -> None:
    """What an importer that was killed an hour ago or more left half copied."""
    if not target.is_local:
        return
    for draft in Path(target.full()).rglob(".*.draft"):
        if time.time() - draft.stat().st_mtime > _STALE_AFTER_S:
            draft.unlink(missing_ok=True)
