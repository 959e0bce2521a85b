"""overlay: what a stream saw of a user since the batch; for now the recent items, one sorted set a user."""

from __future__ import annotations

from redis.asyncio.client import Pipeline

from infra.contracts.ids import ApplicationName
from infra.snapshots import keys

RECENT_ITEMS = 50
"""Kept and read for each user."""


def ask_recent(pipe: Pipeline, application: ApplicationName, user_id: str) -> None:
    """Add the read of a user's recent items, newest first, to a pipeline; its reply goes to `recent_ids`."""
    pipe.zrevrange(keys.recent_items(application, user_id), 0, RECENT_ITEMS - 1)


def recent_ids(reply: list[bytes]) -> list[str]:
    """Item ids, newest first."""
    return [member.decode() for member in reply]
