"""A nearline worker killed again and again at random moments while events come: in the end each event is counted once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.nearline_kills import by_command, by_itself, differing, killed_again_and_again
from tests.fixtures.nearline_shop import SHOP, Shop, counted_plainly, digests_of, now_us, records_of
from tests.fixtures.proof import sized
from tests.fixtures.tiny_snapshot import RANKING


@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", ["by itself", "by command"])
async def test_each_event_is_counted_once_however_often_the_worker_is_killed(
    redis_url: str, tmp_path: Path, how: str
) -> None:
    shop = Shop(redis_url, application=RANKING if how == "by command" else SHOP)
    await shop.client.flushall()
    life = by_command(redis_url, tmp_path, kills=sized(2, full=20))
    if how == "by itself":
        life = by_itself(redis_url, "fenced", kills=sized(5, full=20))
    events = await killed_again_and_again(shop, life)
    moment = now_us()
    found, wanted = await shop.states(), counted_plainly(records_of(events))
    assert differing(found, wanted, moment) == []
    assert digests_of(found, moment) == digests_of(wanted, moment)
    assert sum(len(part) for part in found) > 40
    await shop.close()


@pytest.mark.timeout(900)
async def test_without_the_fence_some_events_are_counted_twice(redis_url: str) -> None:
    """Else the proof above would prove nothing."""
    shop = Shop(redis_url)
    await shop.client.flushall()
    events = await killed_again_and_again(shop, by_itself(redis_url, "unfenced", kills=sized(5, full=20)))
    assert differing(await shop.states(), counted_plainly(records_of(events)), now_us()) != []
    await shop.close()
