"""The past of an answer needs no more of the archive than any feature looks back, and what was sent twice just before that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from infra.contracts.events import Event, shard_of
from infra.eventlog import records as wire
from infra.eventlog.protocol import Slice
from infra.nearline.archive import Archiver, archive_of, begins_after, end_of, stretches, stretches_since
from infra.nearline.past import Past, reach_of
from infra.snapshots.storage import Storage
from tests.fixtures.list_log import ListLog
from tests.fixtures.nearline_shop import PLAN
from tests.fixtures.tiny_snapshot import RANKING

HORIZON = 10
NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)
NOW_US = round(NOW.timestamp()) * 1_000_000
USER, SHARD = ("user", "u1"), shard_of("user", "u1")


class TimelyLog(ListLog):
    """It took each event when it happened."""

    async def read(self, after: Mapping[int, int], *, count: int) -> list[Slice]:
        found = await super().read(after, count=count)
        return [
            replace(piece, logged_ms=[one.event_time_us // 1000 for one in wire.decode(piece.payloads)])
            for piece in found
        ]


def clicks(days: int) -> list[Event]:
    """One an hour; of every fourth the event comes twice."""
    out = []
    for hours in range(days * 24, 0, -1):
        entities = {"user": "u1", "item": f"i{hours % 300}"}
        event = Event(f"e{hours}", "click", NOW - timedelta(hours=hours, seconds=-60), entities)
        out += [event] * (2 if hours % 4 == 0 else 1)
    return out


async def archived(folder: Path, days: int) -> Storage:
    log, archive = TimelyLog(seed=1), archive_of(str(folder), RANKING)
    archiver = Archiver(log, archive, records=20, seconds=1e9)
    for event in clicks(days):
        await log.append(event.records())
    while await archiver.once(at_once=True):
        pass
    return archive


async def test_what_is_older_than_any_window_is_not_read_and_changes_nothing(tmp_path: Path) -> None:
    archive = await archived(tmp_path, days=40)
    since = reach_of(PLAN, NOW)
    files = stretches_since(archive, SHARD, since, horizon=HORIZON)
    assert 0 < len(files) < len(stretches(archive, SHARD)) / 2
    assert begins_after(archive, SHARD, since, horizon=HORIZON) == files[0].after > 0
    whole, part = Past(archive, PLAN, horizon=HORIZON), Past(archive, PLAN, horizon=HORIZON, since=since)
    end = {SHARD: end_of(archive, SHARD)}
    states = [past.state_at(USER, end) for past in (whole, part)]
    assert len(states[1]) < len(states[0]), "less was read"
    found = [PLAN.features("user", state, NOW_US) for state in states]
    assert found[0] == found[1]
    assert (found[0]["clicks_last_hour"], len(found[0]["recent_items"])) == (1, 7 * 24)  # type: ignore[arg-type]
    for spec in PLAN.of("item", boards=True):
        boards = [past.board_at("item", SHARD, end[SHARD]) for past in (whole, part)]
        assert spec.value(boards[0], NOW_US) == spec.value(boards[1], NOW_US)


async def test_an_archive_that_is_older_than_all_of_it_is_not_read(tmp_path: Path) -> None:
    archive = await archived(tmp_path, days=2)
    later = NOW + timedelta(days=30)
    assert stretches_since(archive, SHARD, later, horizon=HORIZON) == []
    assert begins_after(archive, SHARD, later, horizon=HORIZON) == end_of(archive, SHARD)
    assert begins_after(archive, SHARD, None, horizon=HORIZON) == 0
    past = Past(archive, PLAN, horizon=HORIZON, since=later)
    assert past.state_at(USER, {SHARD: end_of(archive, SHARD)}) == {}


async def test_what_was_sent_again_behind_the_bound_is_found_by_what_lies_before_it(tmp_path: Path) -> None:
    archive = await archived(tmp_path, days=20)
    twice = next(hours for hours in range(7 * 24, 6 * 24, -1) if hours % 4 == 0)
    for seconds in range(-7200, 7200, 600):  # a bound before, between and behind the two
        since = NOW - timedelta(hours=twice) + timedelta(seconds=seconds)
        part = Past(archive, PLAN, horizon=HORIZON, since=since)
        state = part.state_at(USER, {SHARD: end_of(archive, SHARD)})
        counts = [amount for field, amount in state.items() if field[0] == "+"]
        assert set(counts) == {1}, "each click once"
