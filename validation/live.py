"""live: which version a new snapshot is compared with: what the alias says, or else what the records on the store say."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from infra.contracts.errors import SnapshotNotFound
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import State
from infra.snapshots.alias import AliasStore
from infra.snapshots.versions import SnapshotStore


@dataclass(frozen=True, slots=True)
class Live:
    """version: None before the first flip. doubt: why the alias was not the source; empty where it was."""

    version: VersionName | None
    doubt: str = ""


def live_version(store: SnapshotStore, client: redis.Redis) -> Live:
    """What `predictions_current` names.

    A Redis that does not answer must not let a snapshot pass uncompared, nor stop the batch side for the time of an outage:
    the state records beside the snapshots say which version was put live last, and the report says that they were asked.
    """
    try:
        alias = AliasStore(client, store.application).read()
    except redis.exceptions.RedisError as error:
        return _by_the_records(store, f"Redis does not answer ({type(error).__name__})")
    if alias is not None:
        return Live(alias.version)
    recorded = _by_the_records(store, "the alias in Redis is empty")
    return recorded if recorded.version is not None else Live(None)


def _by_the_records(store: SnapshotStore, why: str) -> Live:
    try:
        version = store.newest(State.LIVE).version
    except SnapshotNotFound:
        return Live(None, f"{why}, and no record on the store says that a version is live")
    return Live(version, f"{why}; the records on the store say that {version} is live")
