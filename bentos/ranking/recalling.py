"""recalling: one logged answer by its request id: in the log of what is not archived yet, then in the archive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import orjson

from bentos.web.request_ids import moment_of
from infra.contracts.decisions import Decision
from infra.eventlog.decisions import LoggedDecision, RedisDecisionLog
from infra.nearline.decision_archive import find, place_of
from infra.snapshots.storage import Storage

_PAGE = 200
"""Entries a read of the log: some 600 KB."""

_LOOKED_AT = 5000
"""Entries of the log, newest first, that are looked at for an id that does not tell its time: 15 MB, some 0.1 s."""

_BEFORE, _AFTER = timedelta(seconds=1), timedelta(seconds=30)
"""How much earlier or later than its id says an answer may have been logged: two clocks, and a queue."""

_QUEUED, _AGAIN_S = timedelta(seconds=1), 0.1
"""An answer that was given so short a time ago may still wait to be logged, and is looked for again."""


class Recall:
    """Finds answers. What it costs: an id that tells its time, one or two pages of the log, then the one or two files of the
    archive that were written about then; another id the newest _LOOKED_AT entries, then the footer of every file (50 KB each).
    """

    def __init__(self, log: RedisDecisionLog, archive: Storage) -> None:
        self._log = log
        self._archive = archive

    async def find(self, request_id: str) -> Decision | None:
        """The answer; None where neither has it. Raises DependencyUnavailable, OSError."""
        at = moment_of(request_id)
        logged = await self._logged(request_id, at)
        until_s = time.monotonic() + _QUEUED.total_seconds()  # an id may say any moment, also one that is far away
        while (
            logged is None and at is not None and abs(datetime.now(UTC) - at) < _QUEUED and time.monotonic() < until_s
        ):
            await asyncio.sleep(_AGAIN_S)
            logged = await self._logged(request_id, at)
        if logged is not None:
            return logged
        since, until = (at - _BEFORE, at + _AFTER) if at is not None else (None, None)
        found = await asyncio.to_thread(find, self._archive, request_id, since=since, until=until)
        return found.decision() if found is not None else None

    async def _logged(self, request_id: str, at: datetime | None) -> Decision | None:
        begins = b'{"request_id":' + orjson.dumps(request_id) + b","
        async for entry in self._entries(at):
            if entry.document.startswith(begins):
                return entry.decision()
        return None

    async def _entries(self, at: datetime | None) -> AsyncIterator[LoggedDecision]:
        """Those of the log among which the answer is, if the log has it."""
        if at is None:
            before = ""
            for _ in range(_LOOKED_AT // _PAGE):
                page = await self._log.newest(count=_PAGE, before=before)
                for entry in page:
                    yield entry
                if len(page) < _PAGE:
                    return
                before = page[-1].position
            return
        after = f"{_ms(at - _BEFORE)}-0"
        while page := await self._log.read(after=after, count=_PAGE):
            for entry in page:
                yield entry
            after = page[-1].position
            if place_of(after)[0] > _ms(at + _AFTER):
                return


def _ms(at: datetime) -> int:
    return max(0, int(at.timestamp() * 1000))
