"""Log, worker and state on a real Redis Cluster of two nodes, through the client that the settings give."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pydantic import SecretStr

from infra.config.settings import Settings
from infra.contracts.events import SHARDS
from infra.contracts.features import Deltas
from infra.eventlog.scripts import executed
from infra.nearline.members import Members
from infra.nearline.opening import open_log
from infra.nearline.pending import READ, PendingRecords
from infra.nearline.state import StateStore
from infra.nearline.state_terms import StateTerms
from infra.nearline.worker import Worker
from infra.snapshots.connection import serving_client
from tests.fixtures.nearline_shop import PLAN, counted_plainly, now_us, records_of, some_events, until
from tests.fixtures.redis_cluster import redis_cluster
from tests.fixtures.tiny_snapshot import RANKING


async def test_each_event_counts_once_on_a_cluster_and_a_request_reads_all_of_a_user_in_one_script(
    tmp_path: Path,
) -> None:
    with redis_cluster(tmp_path / "cluster", nodes=2) as (port, _):
        url = f"redis+cluster://127.0.0.1:{port}"
        log = open_log(Settings(home=tmp_path, log_redis_url=SecretStr(url)), RANKING, timeout_s=5.0)
        client = serving_client(url, timeout_s=5.0)
        store = StateStore(client, RANKING, PLAN)
        events = some_events(500, seed=1, users=400)
        records = records_of(events)
        appended = await log.append(records)
        assert [one.duplicate for one in await log.append(records)] == [True] * len(records)
        pending = PendingRecords(client, RANKING, PLAN, kinds=frozenset({"user"}))
        await pending.note(records, appended)

        async def features(user: str) -> dict[str, object]:
            (reply,) = await executed(client, lambda pipe: pending.ask(pipe, "user", user), READ)
            return dict(PLAN.features("user", pending.seen("user", user, reply).state, moment))

        moment = now_us()
        users = sorted({event.entities["user"] for event in events})
        wanted = Deltas()
        for part in counted_plainly(records):
            wanted |= part
        expected = {user: dict(PLAN.features("user", wanted.get(("user", user), {}), moment)) for user in users}
        assert {user: await features(user) for user in users} == expected, "before any worker ran"
        members, terms = Members(client, RANKING, "w"), StateTerms(client, RANKING)
        worker = Worker(log, store, PLAN, members, terms=terms, name="w", horizon=1000, page=50)
        stop = asyncio.Event()
        working = asyncio.create_task(worker.run(stop))

        async def is_counted() -> bool:
            tips = {shard: extent.tip for shard, extent in (await log.extents(range(SHARDS))).items()}
            return await store.offsets() == tips

        await until(is_counted, working=[working])
        stop.set()
        await working
        assert {user: await features(user) for user in users} == expected, "each once"
        await log.close()
        await client.aclose()
