"""The command line of the worker: what it tells, how it ends, and how one goes on after a loss."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.contracts.events import SHARDS, Event, shard_of
from infra.eventlog import records as wire
from infra.nearline.archive import archive_of, end_of, read_archive
from infra.snapshots import keys
from tests.fixtures.proof import sized
from tests.fixtures.redis_server import RedisProcess
from tests.unit.infra.nearline.command_line import RANKING, Shop, shop_of, stop
from tests.unit.infra.nearline.scene import event, some


@pytest.fixture
def shop(own_redis: RedisProcess, tmp_path: Path) -> Iterator[Shop]:
    with shop_of(own_redis, tmp_path / "home") as made:
        yield made


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_counts_and_archives_until_it_is_told_to_stop(shop: Shop, how: signal.Signals) -> None:
    events = some(range(400))
    shop.append(events)
    worker = shop.start("--name", "ada")
    shop.until("applied")
    owned = shop.until("archived")
    assert all(row["owner"].startswith("ada-") and row["lag"] == 0 for row in owned.values())
    ended = stop(worker, how)
    assert ended.code == 0, ended
    assert ended.result["records"] == sum(len(one.records()) for one in events)
    assert {row["owner"] for row in shop.ask("status", "--json").result["shards"]} == {""}
    found = shop.ask("digest", "--json").result
    assert found["is_still"] and found["digests"] == shop.digests(events, found["now"])
    assert found["offsets"] == {str(shard): row["tip"] for shard, row in owned.items()}


def test_a_worker_without_archive_leaves_no_file(shop: Shop) -> None:
    shop.append(some(range(40)))
    worker = shop.start("--no-archive")
    shop.until("applied")
    assert stop(worker).code == 0
    assert not archive_of(str(shop.home / "store"), RANKING).names()
    said = shop.ask("archive", "--json")
    assert said.stderr == "" and said.result["records"] > 40
    assert shop.ask("archive").result["records"] == 0


def test_workers_that_are_killed_lose_and_double_nothing(shop: Shop) -> None:
    rng = random.Random(7)
    shop.more = {
        "HEADGATE_ARCHIVE_RECORDS": "5",
        "HEADGATE_LOG_KEPT_RECORDS": "10",
        "HEADGATE_LOG_DUPLICATE_HORIZON": "10",
    }
    events: list[Event] = []
    for _ in range(sized(3, full=15)):
        worker = shop.start()
        before = shop.client.hget(keys.nearline_position(RANKING, shard_of("user", "u0")), "offset")
        while True:
            new = some(range(len(events), len(events) + 20))
            shop.append(new)
            events += new
            counted = shop.client.hget(keys.nearline_position(RANKING, shard_of("user", "u0")), "offset")
            if counted != before and rng.random() < 0.1:
                break
        worker.kill()
        worker.communicate(timeout=10)
    worker = shop.start()
    shop.until("applied")
    status = shop.until("archived")
    assert stop(worker).code == 0
    found = shop.ask("digest", "--json").result
    assert found["digests"] == shop.digests(events, found["now"])
    archive = archive_of(str(shop.home / "store"), RANKING)
    archived: dict[str, int] = {}
    for shard in range(SHARDS):
        for piece in read_archive(archive, shard, after=0, upto=end_of(archive, shard)):
            assert list(piece.offsets) == list(range(piece.after + 1, piece.upto + 1))
            for record in wire.decode(piece.payloads):
                archived[record.duplicate_key] = archived.get(record.duplicate_key, 0) + 1
    wanted = {record.duplicate_key: 1 for one in events for record in one.records()}
    assert archived == wanted
    assert any(row["first"] > 1 for row in status.values()), "nothing was trimmed"


def test_a_worker_that_finds_events_lost_ends_loudly_and_skip_goes_on(shop: Shop) -> None:
    shard = shard_of("user", "u0")
    events = [event(number, kind="search", item=number) for number in range(20)]
    shop.append(events)
    shop.client.xtrim(keys.event_log(RANKING, shard), minid="6-0", approximate=False)
    worker = shop.start()
    _, err = worker.communicate(timeout=30)
    assert worker.returncode == 1
    assert "STOPPED: LogLost" in err and "python -m infra.nearline skip" in err
    assert f"error: LogLost: Shard {shard} of the log begins at 6; wanted is 1." in err
    status = shop.ask("status")
    assert f"Shard {shard} has lost records" in status.stderr
    refused = shop.ask("skip", "--shard", str((shard + 1) % SHARDS), "--reason", "why not")
    assert refused.code == 1 and "has lost nothing" in refused.stderr
    assert "reason is empty" in shop.ask("skip", "--shard", str(shard), "--reason", " ").stderr
    done = shop.ask("skip", "--shard", str(shard), "--reason", "Redis was trimmed by hand").result
    assert (done["before"], done["after"], done["from_archive"], done["lost"]) == (0, 5, 0, 5)
    again = shop.start()
    shop.until("applied")
    shop.until("archived")
    assert stop(again).code == 0
    found = shop.ask("digest", "--json").result
    assert found["digests"] == shop.digests(events[5:], found["now"])


def test_skip_counts_what_the_archive_still_holds(shop: Shop) -> None:
    shard = shard_of("user", "u0")
    events = [event(number, kind="search", item=number) for number in range(20)]
    shop.append(events[:12])
    shop.ask("archive")
    shop.append(events[12:])
    shop.client.xtrim(keys.event_log(RANKING, shard), minid="16-0", approximate=False)
    done = shop.ask("skip", "--shard", str(shard), "--reason", "a test").result
    assert (done["before"], done["after"], done["from_archive"], done["lost"]) == (0, 15, 12, 3)
    worker = shop.start()
    shop.until("archived")
    shop.until("applied")
    stop(worker)
    found = shop.ask("digest", "--json").result
    assert found["digests"] == shop.digests(events[:12] + events[15:], found["now"])


def test_a_log_that_came_back_shorter_goes_on_behind_what_was_read(shop: Shop) -> None:
    shard = shard_of("user", "u0")
    events = [event(number, kind="search", item=number) for number in range(20)]
    shop.append(events)
    shop.ask("archive")
    shop.client.delete(keys.event_log(RANKING, shard))
    shop.client.set(keys.event_log_tip(RANKING, shard), 0)
    for half in (0, 1):
        shop.client.delete(keys.event_log_seen(RANKING, shard, half))
    late = [event(number, kind="search", item=number) for number in range(20, 23)]
    worker = shop.start()
    assert worker.wait(timeout=30) == 1
    done = shop.ask("skip", "--shard", str(shard), "--reason", "the disk was full").result
    assert (done["before"], done["after"], done["from_archive"], done["lost"]) == (0, 20, 20, 0)
    shop.append(late)
    worker = shop.start()
    shop.until("applied")
    shop.until("archived")
    stop(worker)
    found = shop.ask("digest", "--json").result
    assert found["digests"] == shop.digests(events + late, found["now"])


def test_a_log_that_came_back_empty_and_grew_past_what_was_read_is_found_and_goes_on_behind(shop: Shop) -> None:
    shard = shard_of("user", "u0")
    events, late = ([event(number, kind="search", item=number) for number in of] for of in (range(20), range(20, 50)))
    shop.append(events)
    worker = shop.start()
    shop.until("archived")
    shop.until("applied")
    stop(worker)
    of_the_log = (keys.event_log, keys.event_log_tip, keys.event_log_terms)
    halves = [keys.event_log_seen(RANKING, shard, half) for half in (0, 1)]
    shop.client.delete(*(name(RANKING, shard) for name in of_the_log), *halves)
    shop.append(late)
    assert f"Shard {shard} has lost records" in shop.ask("status").stderr
    again = shop.start()
    _, err = again.communicate(timeout=30)
    assert again.returncode == 1
    assert f"LogLost: Shard {shard} of the log is another one beyond 0; it was read up to 20 before." in err
    assert "python -m infra.nearline skip" in err
    done = shop.ask("skip", "--shard", str(shard), "--reason", "the log's disk was full").result
    assert (done["before"], done["after"], done["from_archive"], done["lost"]) == (20, 20, 0, 0)
    worker = shop.start()
    shop.until("applied")
    shop.until("archived")
    stop(worker)
    found = shop.ask("digest", "--json").result
    assert found["offsets"][str(shard)] == 50 and found["digests"] == shop.digests(events + late, found["now"])


def test_skip_is_refused_while_a_worker_holds_the_shard(shop: Shop) -> None:
    shop.append(some(range(20)))
    worker = shop.start()
    shop.until("applied")
    said = shop.ask("skip", "--shard", "3", "--reason", "a test")
    assert said.code == 1 and "holds shard 3" in said.stderr
    assert stop(worker).code == 0


def test_the_features_of_an_entity_are_told(shop: Shop) -> None:
    shop.append([event(number, kind="click", item=number, age_s=100 - number) for number in range(4)])
    worker = shop.start()
    shop.until("applied")
    stop(worker)
    said = shop.ask("features", "user", "u0")
    assert "clicks_last_hour: 4" in said.stderr and "recent_items: i3, i2, i1, i0" in said.stderr
    found = shop.ask("features", "user", "u0", "--json").result
    assert found["features"]["clicks_last_hour"] == 4 and found["pending"] == []
    later = shop.ask("features", "user", "u0", "--json", "--now", "2099-01-01T00:00:00Z").result
    assert later["features"]["clicks_last_hour"] == 0
    assert "no kind of ranking; there are: item, user" in shop.ask("features", "card", "c1").stderr
    assert "wanted a moment with a zone" in shop.ask("digest", "--now", "yesterday").stderr
    assert shop.ask("status", "--application", "chess").code == 1


def test_a_reader_that_is_gone_for_good_is_seen_and_forgotten(shop: Shop) -> None:
    shop.append([event(number, kind="search", item=number) for number in range(20)])
    shop.client.hset(keys.log_consumers(RANKING), f"audit:{shard_of('user', 'u0')}", 4)
    said = shop.ask("consumers", "--json").result
    assert said["consumers"] == {"audit": 16}
    assert "'nobody' reads nothing; there are: audit" in shop.ask("forget", "nobody").stderr
    assert shop.ask("forget", "audit").result["forgotten"] == "audit"
    assert shop.client.hgetall(keys.log_consumers(RANKING)) == {}


def test_the_commands_say_where_redis_is_when_it_is_away(shop: Shop) -> None:
    shop.server.stop()
    for words in (
        ["status"],
        ["digest"],
        ["features", "user", "u1"],
        ["archive"],
        ["consumers"],
        ["forget", "audit"],
        ["skip", "--shard", "1", "--reason", "r"],
    ):
        said = shop.ask(*words)
        assert said.code == 1 and "DependencyUnavailable" in said.stderr, said
