"""Answers amid items that come, go and are called otherwise: all of them made again from the archive, to the bit."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bentos.ranking.offline import Offline
from infra.nearline.decision_archive import read_decisions
from tests.fixtures.answers import HORIZON, NAME, Town, town
from tests.fixtures.redis_server import RedisProcess
from tests.unit.bentos.ranking.test_past_boards import changed


async def live(place: Town) -> None:
    """Each turn some of what is shown goes, or is called otherwise, and some of what was gone comes back."""
    gone: list[str] = []
    for turn in range(25):
        for user in ("u1", "u3", "nobody", f"u{turn}"):
            shown = await place.ask(user, n=20, context={"recent_items": [f"i{turn}"]})
            assert not set(shown) & set(gone)
            await place.post([changed(shown[0], turn, title=f"T {turn}", genres="Polka", creator="studio 3")])
        gone += shown[:3]
        back = gone.pop(0)
        await place.post([changed(item, turn, available=0) for item in gone[-2:]])
        await place.post([changed(back, turn + 1000, available=1), place.added(f"newer {turn}", genres="Drama")])
        if turn % 3 == 0:
            await place.post([changed(f"newer {turn}", turn, available=0)])
            gone.append(f"newer {turn}")
        gone = [item for item in dict.fromkeys(gone) if item != back]
        await place.post([changed(item, turn + 2000, available=0) for item in gone])
        await place.until_counted()
        await place.boards.refresh(time.time_ns() // 1000)
        await asyncio.sleep(0)


async def test_every_answer_is_made_again_to_the_bit(own_redis: RedisProcess, tmp_path: Path) -> None:
    async with town(own_redis.url, tmp_path / "store") as place:
        async with place.working("a worker", page=100):
            await live(place)
        await place.archive_all()
        decisions = [entry.decision() for entry in read_decisions(place.archive)]
        again = Offline(str(place.stage.root), NAME, horizon=HORIZON)
        again.expect(decisions)
        replayed = [await again.replay(decision) for decision in decisions]
    assert len(decisions) == 100
    assert [one.compared.differences for one in replayed if not one.is_exact] == []
