"""The state machine must find what is broken on purpose: each break is one promise taken away."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase

from infra.contracts.ids import VersionName
from infra.contracts.snapshots import Alias
from infra.snapshots import alias
from infra.snapshots.leases import Leases
from infra.snapshots.live import LiveSnapshots
from infra.snapshots.serving_copy import ServingCopy
from tests.fixtures.proof import sized
from tests.fixtures.redis_server import RedisProcess
from tests.proof.test_state_machine import run


def follows_anything(patched: pytest.MonkeyPatch) -> None:
    """A reader that takes whatever the alias says."""
    check = LiveSnapshots.check

    async def forgetful(live: LiveSnapshots[VersionName]) -> None:
        live.current = None
        await check(live)

    async def first(live: LiveSnapshots[VersionName], alias: Alias | None) -> Alias | None:
        return alias

    patched.setattr(LiveSnapshots, "check", forgetful)
    patched.setattr(LiveSnapshots, "_first", first)


def deletes_at_once(patched: pytest.MonkeyPatch) -> None:
    """Garbage collection that does not ask who reads."""
    patched.setattr(Leases, "claim", lambda leases, version: True)


def moves_without_comparing(patched: pytest.MonkeyPatch) -> None:
    """An alias that is set, not compared and set."""
    refusal = "  return 0\n"
    assert refusal in alias._MOVE
    patched.setattr(alias, "_MOVE", alias._MOVE.replace(refusal, ""))


def flips_unseen(patched: pytest.MonkeyPatch) -> None:
    """A flip that does not look at the copy."""
    patched.setattr(ServingCopy, "verify", lambda copy, manifest, **named: None)


def marks_first(patched: pytest.MonkeyPatch) -> None:
    """A load that says that it is done before it is."""
    write = ServingCopy._write

    def writing(copy: ServingCopy, *args: Any) -> None:
        manifest = copy._version.manifest()
        row = {"digest": manifest.digest, "records_root": manifest.records_root}
        copy._client.set(copy._marker_key, json.dumps(row | {"users": 0, "payload_bytes": 0, "redis_bytes": 0}))
        write(copy, *args)

    patched.setattr(ServingCopy, "_write", writing)


Break = Callable[[pytest.MonkeyPatch], None]

FOUND_SOON: list[tuple[Break, str]] = [
    (moves_without_comparing, "assert"),
    (flips_unseen, "without a copy"),
]
FOUND_LATE: list[tuple[Break, str]] = [
    (deletes_at_once, "in use, and"),
    (follows_anything, "a reader went from generation"),
    (marks_first, "is called loaded and is not|no longer whole"),
]
"""These need a hundred runs and more."""


@pytest.mark.timeout(sized(600, full=7200))
@pytest.mark.parametrize(("breaks", "said"), sized(FOUND_SOON, full=FOUND_SOON + FOUND_LATE))
def test_the_machine_finds_what_is_broken_on_purpose(
    server: RedisProcess, monkeypatch: pytest.MonkeyPatch, breaks: Break, said: str
) -> None:
    breaks(monkeypatch)
    with pytest.raises(AssertionError, match=said):
        run(server, runs=2000, steps=40, phases=(Phase.generate,))
