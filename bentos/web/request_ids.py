"""request_ids: ids that tell when they were given (UUID version 7, as hex), so that what was logged under one is soon found."""

from __future__ import annotations

import re
import secrets
import time
from datetime import UTC, datetime

_AHEAD_S = 86_400
"""Another machine's clock may be ahead, by a time zone at worst."""

_TIMED = re.compile(r"([0-9a-f]{12})7[0-9a-f]{3}[89ab][0-9a-f]{15}")


def new_request_id() -> str:
    """32 hex digits: 48 bits of milliseconds since 1970, then 74 random bits between version and variant (RFC 9562, 5.7)."""
    random = secrets.randbits(74)
    return f"{time.time_ns() // 1_000_000:012x}7{random >> 62:03x}{(random & (1 << 62) - 1) | 1 << 63:016x}"


def moment_of(request_id: str) -> datetime | None:
    """When the id was given, to the millisecond; None for ids that do not tell, or tell of a moment that is more than a day ahead.

    What follows the 32 digits does not matter.
    """
    found = _TIMED.match(request_id)
    if found is None or int(found[1], 16) / 1000 > time.time() + _AHEAD_S:
        return None
    return datetime.fromtimestamp(int(found[1], 16) / 1000, UTC)
