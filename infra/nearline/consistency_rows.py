"""consistency_rows: what came of making a sample of answers again, a row an answer, as one job files it and the next judges it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from infra.contracts.errors import InvalidRequest
from infra.contracts.ids import ApplicationName
from infra.snapshots.storage import Storage

ROWS = "answers.parquet"

NO_RUN = "none"
"""The run of a job that found no answers."""


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One answer.

    replayed: whether it could be made again; because: why not; is_lost: and that should not be: its snapshot is
    there, and so was all of its request. values, mismatches: feature values compared to the bit, and how
    many differ. differences: of any kind; kinds: theirs, with commas between; example: one in words. as_of_values,
    as_of_mismatches: the same with features by event time instead of what the answer's offsets say; as_of_differs: whether the
    list itself would be another.
    """

    request_id: str
    user_id: str
    at_us: int
    version: str
    replayed: bool
    because: str = ""
    is_lost: bool = False
    values: int = 0
    mismatches: int = 0
    differences: int = 0
    kinds: str = ""
    example: str = ""
    as_of_values: int = 0
    as_of_mismatches: int = 0
    as_of_differs: bool = False


SCHEMA = pa.schema(
    [
        pa.field(name, {"str": pa.string(), "int": pa.int64(), "bool": pa.bool_()}[str(kind)], nullable=False)
        for name, kind in AnswerRow.__annotations__.items()
    ]
)


def runs_of(store: str, application: ApplicationName) -> Storage:
    """Where an application's runs lie, a folder each."""
    return Storage(store).below(f"{application}/consistency")


def run_name(now: datetime) -> str:
    """`20260501T120000.000000Z`; as text it sorts by time."""
    return now.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def file_rows(runs: Storage, run: str, rows: Sequence[AnswerRow]) -> str:
    """Store them; returns the path below `runs`."""
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA), content)
    path = f"{run}/{ROWS}"
    if not runs.create(path, content.getvalue()):
        raise InvalidRequest(f"{runs.uri(path)} is there already: two runs have one moment.")
    return path


def read_rows(runs: Storage, run: str) -> pa.Table:
    """The rows of a run; of the newest one where `run` is empty. Raises InvalidRequest where there is none."""
    names = [name for name in runs.names() if runs.exists(f"{name}/{ROWS}")]
    chosen = run or (names[-1] if names else "")
    if chosen not in names:
        raise InvalidRequest(
            f"There is no run {chosen!r} in {runs.url}.", mend="Run: python -m spark_jobs.training.consistency"
        )
    with runs.open(f"{chosen}/{ROWS}") as file:
        return pq.read_table(file).replace_schema_metadata({"run": chosen})
