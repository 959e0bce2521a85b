"""filing: a judgement's documents, stored beside the snapshot's sealed parts and never replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import great_expectations as gx
import orjson

from infra.contracts.errors import ContractViolation
from infra.snapshots.versions import Version
from validation.judgement import Judgement
from validation.live import Live

FOLDER = "validation"
"""In the version's folder; the manifest names nothing below it, so a second judgement adds and changes nothing sealed."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """One judgement in its circumstances. digest: of the manifest, empty where that could not be read."""

    application: str
    version: str
    digest: str
    judgement: Judgement
    live: Live
    actor: str
    judged_at: datetime

    @property
    def verdict(self) -> str:
        """In a word."""
        return "refused" if self.judgement.refused else "passed"


@dataclass(frozen=True, slots=True)
class Filed:
    """Where the documents lie, as paths or URLs that a shell could open."""

    page: str
    record: str
    expectations: str


def stamp_of(moment: datetime) -> str:
    """What a judgement's files are named by: `20240601T120000.000000Z`; as text it sorts by time."""
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")


def file_report(version: Version, ruling: Ruling, *, page: bytes, facts: Mapping[str, object]) -> Filed:
    """Store the page, the record and Great Expectations' own results. facts: what the page shows beside the findings."""
    stamp = stamp_of(ruling.judged_at)
    expectations = {"great_expectations": gx.__version__, "validations": ruling.judgement.documents}
    paths = {
        f"{FOLDER}/{stamp}-report.html": page,
        f"{FOLDER}/{stamp}-report.json": _json({**record_of(ruling), "facts": facts}),
        f"{FOLDER}/{stamp}-great-expectations.json": _json(expectations),
    }
    for path, content in paths.items():
        if not version.storage.create(path, content):
            raise ContractViolation(f"{version.label}: {path} is there already: two judgements have one moment.")
    return Filed(*(version.storage.uri(path) for path in paths))


def record_of(ruling: Ruling) -> dict[str, object]:
    """The judgement for machines."""
    judgement = ruling.judgement
    return {
        "application": ruling.application,
        "version": ruling.version,
        "digest": ruling.digest,
        "verdict": ruling.verdict,
        "summary": judgement.summary,
        "judged_at": ruling.judged_at.isoformat(),
        "actor": ruling.actor,
        "live": ruling.live.version,
        "live_doubt": ruling.live.doubt,
        "findings": [asdict(finding) for finding in judgement.findings],
        "figures": judgement.figures,
    }


def _json(content: Mapping[str, object]) -> bytes:
    """Indented JSON; NaN becomes null."""
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
