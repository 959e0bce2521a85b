"""rejects: every row that is no event, in a file of JSON lines: file, line, reason, text; counted by reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import TracebackType

import orjson

from spark_jobs.ingest.rows import Reason

MOST_LINES = 1_000_000
"""Later ones are counted and not written: a source that is wrong throughout must not fill the disk."""


class Rejects:
    """Open while rows are read. `counts` has all of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self._out = path.open("wb")

    def __enter__(self) -> Rejects:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.close()

    @property
    def total(self) -> int:
        """Rows rejected so far."""
        return self.counts.total()

    def add(self, file: str, line: int, reason: Reason, text: str) -> None:
        """One rejected row. line: from 1."""
        if self.total < MOST_LINES:
            record = {"file": file, "line": line, "reason": reason.value, "text": text}
            self._out.write(orjson.dumps(record, default=str) + b"\n")
        self.counts[reason.value] += 1

    def close(self) -> None:
        """Nothing more comes; the file is whole."""
        self._out.close()
