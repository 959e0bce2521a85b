"""filing: looks at a canary in Redis, and the judgement that ends it beside its snapshot, as JSON and as a page; never replaced."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import cast

import orjson
import redis

from infra.contracts.canaries import CanaryMode
from infra.contracts.ids import ApplicationName, VersionName
from infra.experiments.judgement import Verdict
from infra.experiments.page import render
from infra.experiments.ruling import Ruling
from infra.snapshots import keys
from infra.snapshots.versions import Version

FOLDER = "canary"
"""In the version's folder; the manifest names nothing below it."""

_OVERRULED = "overruled.json"


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """What is told of a canary in one row. page: the file in the version's storage; empty for a look, which has none."""

    version: VersionName
    generation: int
    mode: CanaryMode
    fraction: float
    verdict: Verdict
    summary: str
    because: str
    judged_at: datetime
    page: str


def look(client: redis.Redis, ruling: Ruling) -> None:
    """Keep the newest look at what runs; the pictures' points are left out."""
    client.set(keys.canary_look(ruling.application), orjson.dumps(record_of(ruling, pictures=False)))


def newest_look(client: redis.Redis, application: ApplicationName) -> CanaryResult | None:
    """The newest look, at whatever canary that was: compare its generation with the alias's. None where there is none."""
    found = cast("bytes | None", client.get(keys.canary_look(application)))
    return _result(json.loads(found), page="") if found is not None else None


def file_ruling(version: Version, ruling: Ruling) -> CanaryResult:
    """Store the ruling that ends the canary of its generation. Where there is one already, that one stands and is returned.

    The page first: whoever finds the record finds the page.
    """
    name = _name(ruling.generation)
    version.storage.create(f"{name}.html", render(ruling))
    version.storage.create(f"{name}.json", orjson.dumps(record_of(ruling), option=orjson.OPT_INDENT_2))
    return _read(version, f"{name}.json")


def overrule(version: Version, filed: CanaryResult, verdict: Verdict, because: str) -> CanaryResult:
    """Record that what was filed is not what happened, beside it; the first overruling stands."""
    name = _name(filed.generation)
    row = json.loads(version.storage.read(f"{name}.json"))
    told = {"verdict": verdict, "because": because, "summary": f"{filed.summary}; {verdict} before that was done"}
    version.storage.create(f"{name}.{_OVERRULED}", orjson.dumps(row | told, option=orjson.OPT_INDENT_2))
    return _read(version, f"{name}.{_OVERRULED}")


def filed_result(version: Version, generation: int) -> CanaryResult | None:
    """The ruling that ended the canary of that generation; None where none was filed."""
    paths = (f"{_name(generation)}.{ending}" for ending in (_OVERRULED, "json"))
    return next((_read(version, path) for path in paths if version.storage.exists(path)), None)


def newest_result(version: Version) -> CanaryResult | None:
    """How the version's last canary or shadow ended; None where none was judged to an end."""
    names = [name for name in version.storage.names(FOLDER) if name.endswith(".json")]
    return _read(version, f"{FOLDER}/{names[-1]}") if names else None


def record_of(ruling: Ruling, *, pictures: bool = True) -> dict[str, object]:
    """The ruling for machines; what is not known (NaN, infinite) becomes null once it is written.

    pictures: with the points of the metrics' pictures.
    """
    canary, found = ruling.canary, ruling.found
    figures = asdict(found) | {"judged_at": found.judged_at.isoformat()}
    if not pictures:
        for metric in figures.get("metrics", ()):
            del metric["path"]
    return {
        "application": ruling.application,
        "version": canary.version,
        "digest": canary.digest,
        "live": ruling.live,
        "mode": canary.mode,
        "fraction": canary.fraction,
        "generation": ruling.generation,
        "started_at": canary.started_at.isoformat(),
        "actor": ruling.actor,
        "verdict": found.verdict,
        "summary": found.summary,
        **figures,
    }


def _name(generation: int) -> str:
    return f"{FOLDER}/{generation:012d}"


def _read(version: Version, path: str) -> CanaryResult:
    return _result(json.loads(version.storage.read(path)), page=path.split(".")[0] + ".html")


def _result(row: dict[str, object], *, page: str) -> CanaryResult:
    return CanaryResult(
        version=VersionName(str(row["version"])),
        generation=int(str(row["generation"])),
        mode=CanaryMode(str(row["mode"])),
        fraction=float(str(row["fraction"])),
        verdict=Verdict(str(row["verdict"])),
        summary=str(row["summary"]),
        because=str(row["because"]),
        judged_at=datetime.fromisoformat(str(row["judged_at"])),
        page=page,
    )
