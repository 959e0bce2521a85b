"""scripts: Lua scripts called by their digest within a pipeline; a server that does not know one yet is told it, and asked again.

redis-py's own way asks at every call whether the server knows the script, which is a round trip more, and has none for a cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import NoScriptError


class Script:
    """One script."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def call(self, pipe: Any, keys: Sequence[str], args: Sequence[str | bytes | int] = ()) -> None:
        """Add a call to a pipeline; its reply may be a NoScriptError."""
        pipe.execute_command("EVALSHA", self.sha, len(keys), *keys, *args)


async def executed(client: redis.asyncio.Redis, build: Callable[[Any], None], *scripts: Script) -> list[Any]:
    """The replies of the pipeline that `build` fills with calls of those scripts, among other commands; twice where need be.

    Raises what redis-py raises.
    """
    try:
        return await once(client, build)
    except NoScriptError:
        await taught(client, *scripts)
        return await once(client, build)


async def taught(client: redis.asyncio.Redis, *scripts: Script) -> None:
    """Let the server know the scripts."""
    for script in scripts:
        await client.script_load(script.text)


async def once(client: redis.asyncio.Redis, build: Callable[[Any], None]) -> list[Any]:
    """The same, once. Raises NoScriptError where the server does not know one."""
    pipe = client.pipeline(transaction=False)
    build(pipe)
    return await pipe.execute()
