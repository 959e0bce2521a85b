"""appender: a producer as a process of its own: appends without end, sends every third batch twice, and says what was acknowledged.

python -m tests.unit.infra.eventlog.appender URL NUMBER: a JSON line for each answer, [[shard, offset, number of the event], ...].
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys

from infra.eventlog.redis_streams import RedisStreamLog
from infra.snapshots.connection import serving_client
from tests.unit.infra.eventlog.scenes import layout, spread

BATCH = 11
NUMBERS = 1_000_000
"""Of one producer; the next one's begin behind them."""


async def main(url: str, producer: int) -> None:
    """Until it is killed."""
    log = RedisStreamLog(serving_client(url, timeout_s=30.0), layout())
    for turn in itertools.count():
        first = producer * NUMBERS + turn * BATCH
        numbers = range(first, first + BATCH)
        for _ in range(1 + (turn % 3 == 0)):
            answers = await log.append(spread(numbers))
            told = [(one.shard, one.offset, number) for one, number in zip(answers, numbers, strict=True)]
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
