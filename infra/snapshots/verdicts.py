"""verdicts: the gate's judgements of a version, as they lie beside its sealed parts; the gate alone writes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from infra.snapshots.versions import Version

_FOLDER = "validation"


@dataclass(frozen=True, slots=True)
class FiledVerdict:
    """One judgement. page: the file in the version's storage that people read; word: `passed` or `refused`.

    digest: of the manifest that was judged, empty where it could not be read. failed: names of the checks, in the suite's order.
    """

    page: str
    word: str
    summary: str
    judged_at: datetime
    digest: str
    failed: tuple[str, ...]


def newest_verdict(version: Version) -> FiledVerdict | None:
    """The last judgement, whichever way it went; None where there was none."""
    records = [name for name in version.storage.names(_FOLDER) if name.endswith("-report.json")]
    if not records:
        return None
    row = json.loads(version.storage.read(f"{_FOLDER}/{records[-1]}"))
    return FiledVerdict(
        page=f"{_FOLDER}/{records[-1].removesuffix('.json')}.html",
        word=row["verdict"],
        summary=row["summary"],
        judged_at=datetime.fromisoformat(row["judged_at"]),
        digest=row["digest"],
        failed=tuple(finding["check"] for finding in row["findings"] if finding["status"] == "failed"),
    )
