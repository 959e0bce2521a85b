"""preflight: what must hold before anything is started: room on the disk, a Java, a Redis, and the ports."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.config.settings import Settings
from infra.contracts.errors import NotEnoughRoom, OperatorError
from infra.local import tools
from infra.local.stack.component import Component
from infra.local.stack.ports import require_free
from infra.snapshots.connection import batch_client, require

ROOM_NEEDED_BYTES = 2_000_000_000
"""The demo's data, two snapshots, Redis's file, logs, and what Spark sets aside while it works."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What was found."""

    java_home: Path


def check(chosen: Settings, *, to_start: Sequence[Component]) -> Ground:
    """Raises the first problem, cheapest look first; changes nothing but that tools may be unpacked into <home>/tools."""
    home = chosen.home.resolve()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(
            f"{home} cannot be made: {error.strerror}.", mend="Set HEADGATE_HOME to another folder."
        ) from error
    for component in to_start:
        if component.port is not None:
            require_free(component.port, what=component.title, setting=component.port_setting)
    require_room(home, needed_bytes=ROOM_NEEDED_BYTES)
    java_home = tools.find_java()
    if chosen.embedded_redis:
        tools.find_redis()
    else:
        url = chosen.redis_url.get_secret_value()
        with batch_client(url, timeout_s=5.0) as client:
            require(client, url=url)
    return Ground(java_home)


def require_room(folder: Path, *, needed_bytes: int) -> None:
    """Raise NotEnoughRoom where the folder's disk has less."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise NotEnoughRoom(
            f"{folder} has {free / 1e9:.1f} GB free; wanted {needed_bytes / 1e9:.0f} GB.",
            mend="Make room, or set HEADGATE_HOME to a folder on a larger disk.",
        )
