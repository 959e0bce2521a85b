"""The replay's command line: the digests of the worker, and a Redis that lost everything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.redis_server import RedisProcess
from tests.unit.infra.nearline.command_line import Shop, shop_of, stop
from tests.unit.infra.nearline.scene import some

MODULE = "spark_jobs.nearline"


@pytest.fixture
def shop(own_redis: RedisProcess, tmp_path: Path) -> Iterator[Shop]:
    with shop_of(own_redis, tmp_path / "home") as made:
        made.more = {"HEADGATE_SPARK_DRIVER_MEMORY": "1g"}
        yield made


def test_the_replay_gives_the_digests_of_the_worker_and_rebuilds_a_lost_redis(shop: Shop, tmp_path: Path) -> None:
    events = some(range(400))
    shop.append(events)
    worker = shop.start()
    shop.until("applied")
    shop.until("archived")
    assert stop(worker).code == 0
    held = shop.ask("digest", "--json")
    (tmp_path / "held.json").write_text(held.stdout)
    upto = ("--upto", str(tmp_path / "held.json"), "--now", held.result["now"])
    replayed = shop.ask("replay", *upto, "--json", module=MODULE)
    assert replayed.result["digests"] == held.result["digests"] == shop.digests(events, held.result["now"])
    assert replayed.result["offsets"] == held.result["offsets"] and replayed.result["lost"] == {}
    refused = shop.ask("replay", "--restore", *upto, module=MODULE)
    assert refused.code == 1 and "goes without --upto" in refused.stderr

    shop.client.flushall()
    since = some(range(395, 430))  # services send on: some of it again, some of it new
    shop.append(since)
    done = shop.ask("replay", "--restore", "--json", module=MODULE).result
    assert sum(done["entities"].values()) > 10
    assert sum(done["moved"].values()) == sum(len(one.records()) for one in since[5:])
    again = shop.ask("replay", "--restore", "--json", module=MODULE).result
    assert sum(again["entities"].values()) == 0 and again["moved"] == {}
    worker = shop.start()
    shop.until("applied")
    shop.until("archived")
    assert stop(worker).code == 0
    found = shop.ask("digest", "--json").result
    assert found["digests"] == shop.digests(events + since[5:], found["now"])
    later = shop.ask("replay", "--now", found["now"], "--json", module=MODULE).result
    assert later["digests"] == found["digests"]


def test_offsets_that_cannot_be_are_refused(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "offsets.json"
    for text, wanted in (
        ("[1, 2]", "wanted a file like"),
        ('{"16": 3}', "names shard 16; wanted 0 to 15"),
        (json.dumps({"offsets": {"3": 7}}), "ends at offset 0 of shard 3; wanted are records up to 7"),
    ):
        path.write_text(text)
        said = shop.ask("replay", "--upto", str(path), module=MODULE)
        assert said.code == 1 and wanted in said.stderr, said
