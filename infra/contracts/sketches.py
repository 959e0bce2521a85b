"""sketches: how many different values there were, estimated from which of 256 registers have seen which rank, and when.

HyperLogLog (Flajolet, Fusy, Gandouet and Meunier 2007) over a sliding window: each register keeps, for each rank, when it was
last seen (Chabchoub and Hebrail 2010), so that nothing but the window decides what counts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

SKETCH_REGISTERS = 256
"""Of a distinct count: its standard error is 1.04 / sqrt(256), 6.5 %; smaller of small counts: 0.5 of 10, 5 of 100."""


def sketch_place(value: str) -> str:
    """Where a value stands in a distinct count: `register.rank`, of a 64-bit BLAKE2b: 8 bits choose, the rest is ranked by its
    leading zeros + 1."""
    number = int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest())
    rest = number >> 8
    return f"{number & 0xFF}.{57 - rest.bit_length()}"


def estimate(fields: Iterable[tuple[str, int]], *, since_ms: int) -> int:
    """From (place, milliseconds when it was last seen): how many different values came after that moment."""
    ranks: dict[int, int] = {}
    for place, at_ms in fields:
        if at_ms > since_ms:
            register, rank = (int(part) for part in place.split("."))
            ranks[register] = max(rank, ranks.get(register, 0))
    m = SKETCH_REGISTERS
    empty = m - len(ranks)
    raw = (0.7213 / (1 + 1.079 / m)) * m * m / (empty + math.fsum(2.0**-rank for rank in ranks.values()))
    return round(m * math.log(m / empty) if raw <= 2.5 * m and empty else raw)
