"""scenes: short words for what the tests of flips do and look at: validate, load, go live, roll back, what is live, which path."""

from __future__ import annotations

from infra.contracts.ids import VersionName
from infra.contracts.snapshots import Alias, Manifest, State
from infra.snapshots import keys
from infra.snapshots.live import LiveSnapshots
from infra.snapshots.versions import Version
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import RANKING

ALL = 1.0
"""Of Redis's memory: these snapshots are tiny."""

STEPS = ("intend", "apply", "settle")
"""Of a flip, in their order: journal, alias, states."""


def version(stage: Stage, name: str) -> Version:
    return stage.promotion.store.get(name)


def ready(stage: Stage, *names: str) -> None:
    """Validated and loaded."""
    for name in names:
        version(stage, name).record(State.VALIDATED, actor="gate", reason="test")
        stage.promotion.load(version(stage, name), limit_fraction=ALL)


def go(stage: Stage, *names: str) -> None:
    """Ready, and live one after the other."""
    for name in names:
        ready(stage, name)
        stage.promotion.flip(version(stage, name), actor="t", reason=f"go {name}", force=True)


def back(stage: Stage, wanted: str | None = None) -> Alias:
    name = VersionName(wanted) if wanted else None
    return stage.promotion.rollback(name, actor="t", reason="back", limit_fraction=ALL)[1]


def now(stage: Stage) -> tuple[str, int] | None:
    alias = stage.promotion.alias.read()
    return (alias.version, alias.generation) if alias else None


def path(stage: Stage) -> list[str]:
    return [target.version for target in stage.promotion.flips.look().path]


def states(stage: Stage) -> dict[str, State]:
    store = stage.promotion.store
    return {name: store.get(name).state() for name in store.versions()}


def remembered(stage: Stage) -> dict[bytes | str, bytes | str]:
    """All of the alias's hash, to be put back later: an older Redis."""
    return dict(stage.client.hgetall(keys.alias(RANKING)))


def remember(stage: Stage, row: dict[bytes | str, bytes | str]) -> None:
    stage.client.delete(keys.alias(RANKING))
    stage.client.hset(keys.alias(RANKING), items=[part for pair in row.items() for part in pair])


def label(version: Version, manifest: Manifest) -> str:
    """What a service loads of a version, in these tests."""
    return f"content of {manifest.version}"


def served(watched: LiveSnapshots[str]) -> str:
    """What it shows to all but a canary's users."""
    return watched.current.content if watched.current else "nothing"
