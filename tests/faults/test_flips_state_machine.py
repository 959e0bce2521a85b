"""Any order of builds, flips, rollbacks, kills and losses of memory: what must hold of journal, alias, reader and copies."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from infra.contracts.errors import HeadgateError, MoveNotAllowed
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import FlipRecord, Manifest, State, Target
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from infra.snapshots.live import LiveSnapshots
from infra.snapshots.promotion import Promotion
from infra.snapshots.versions import Version
from tests.fixtures.proof import sized
from tests.fixtures.redis_server import RedisProcess, new_redis
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import RANKING, build_tiny_snapshot, tiny_world

NAMES = [VersionName(f"v{number}") for number in range(1, 6)]
names = st.sampled_from(NAMES)
kills = st.sampled_from(["", "", "intend", "apply", "settle"])


class Killed(BaseException):
    """The process ends here."""


def killing(promotion: Promotion, step: str) -> Promotion:
    """One whose next own flip ends before that step; an empty step ends nothing."""
    flips, own = promotion.flips, [0]
    intend, real = flips.intend, getattr(flips, step or "intend")

    def intending(*args: object, **named: object) -> FlipRecord:
        own[0] = flips.look().generation + 1
        if step == "intend":
            raise Killed(step)
        return intend(*args, **named)  # type: ignore[arg-type]

    def stepping(record: FlipRecord, **named: object) -> object:
        if record.generation == own[0]:
            raise Killed(step)
        return real(record, **named)

    flips.intend = intending  # type: ignore[method-assign]
    if step in ("apply", "settle"):
        setattr(flips, step, stepping)
    return promotion


class FlipsMachine(RuleBasedStateMachine):
    """Operators, builds and faults on one store and one Redis, with a service that looks on."""

    def __init__(self, built: Path, url: str) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="headgate-machine-"))
        shutil.copytree(built, self.folder / "store")
        self.stage = Stage(self.folder / "store", url)
        self.client = self.stage.client
        self.client.flushall()
        self.named: dict[int, Target] = {}
        self.rows: list[dict[bytes | str, bytes | str]] = []
        self.reader_saw = 0
        self.loop = asyncio.new_event_loop()
        self.service_redis = serving_client(url, timeout_s=5.0)
        self.service: LiveSnapshots[str] = LiveSnapshots(self.service_redis, self.promotion.store, _content)

    @property
    def promotion(self) -> Promotion:
        return Promotion(self.stage.promotion.store, self.client)

    def version(self, name: VersionName) -> Version:
        return self.promotion.store.get(name)

    def attempt(self, action: Callable[[], object]) -> None:
        """Refusals and kills are part of life."""
        with suppress(HeadgateError, Killed):
            action()

    @initialize()
    def begin(self) -> None:
        for name in NAMES[:3]:
            self.promote(name, "", force=True)
        self.look()

    @rule(name=names, state=st.sampled_from([State.VALIDATED, State.VALIDATED, State.REJECTED]))
    def judge(self, name: VersionName, state: State) -> None:
        with suppress(MoveNotAllowed):
            self.version(name).record(state, actor="gate", reason="test")

    @rule(name=names)
    def load(self, name: VersionName) -> None:
        self.attempt(lambda: self.promotion.load(self.version(name), limit_fraction=1.0))

    @rule(name=names, step=kills, force=st.sampled_from([True, True, True, False]))
    def promote(self, name: VersionName, step: str, force: bool) -> None:
        with suppress(MoveNotAllowed):
            self.version(name).record(State.VALIDATED, actor="gate", reason="test")
        self.attempt(lambda: self.promotion.load(self.version(name), limit_fraction=1.0))
        acting = killing(self.promotion, step)
        self.attempt(lambda: acting.flip(self.version(name), actor="t", reason="r", force=force))

    @rule(step=kills, wanted=st.none() | names)
    def roll_back(self, step: str, wanted: VersionName | None) -> None:
        acting = killing(self.promotion, step)
        self.attempt(lambda: acting.rollback(wanted, actor="t", reason="r", limit_fraction=1.0))

    @rule()
    def lose_memory(self) -> None:
        self.client.flushall()

    @rule(back=st.integers(1, 3))
    def come_back_older(self, back: int) -> None:
        row = self.rows[-1 - back :][:1]
        if row:
            self.client.delete(keys.alias(RANKING))
            self.client.hset(keys.alias(RANKING), items=[part for pair in row[0].items() for part in pair])

    @rule(keep=st.integers(2, 3))
    def collect(self, keep: int) -> None:
        before, path = set(self.promotion.loaded()), self.promotion.flips.look().path
        leased = set(self.promotion.leases.readers())
        self.promotion.collect(keep=keep)
        path = self.promotion.flips.look().path or path
        must_stay = leased | {target.version for target in path[-2:]}
        assert before & must_stay <= set(self.promotion.loaded())

    @rule()
    def reload(self) -> None:
        self.attempt(lambda: self.promotion.reload(limit_fraction=1.0))

    @rule()
    def restart_service(self) -> None:
        self.service = LiveSnapshots(self.service_redis, self.promotion.store, _content)
        self.reader_saw = 0

    @rule()
    def look(self) -> None:
        self.loop.run_until_complete(self.service.check())
        pinned = self.service.current
        if pinned is not None:
            assert pinned.alias.generation >= self.reader_saw, "a reader acted on a lower generation"
            self.reader_saw = pinned.alias.generation
            self._name(pinned.alias.generation, Target(pinned.alias.version, pinned.alias.digest))
            assert pinned.content == pinned.alias.version

    @invariant()
    def the_alias_names_what_was_validated_with_that_digest(self) -> None:
        row = self.client.hgetall(keys.alias(RANKING))
        if row and row not in self.rows:
            self.rows.append(row)
        alias = self.promotion.alias.read()
        if alias is not None:
            version = self.version(alias.version)
            assert version.manifest().digest == alias.digest
            assert State.VALIDATED in {record.state for record in version.history()}
            self._name(alias.generation, Target(alias.version, alias.digest))

    @invariant()
    def the_journal_has_every_generation_once_and_redis_is_never_ahead_of_it(self) -> None:
        told = [record for record, _ in self.promotion.flips.journal.newest(1000)]
        assert [record.generation for record in told] == list(range(len(told), 0, -1))
        for record in told:
            self._name(record.generation, record.target)
        assert not self.promotion.flips.look().ahead

    def teardown(self) -> None:
        """Whatever happened, the next look at it ends in one live version, or in none that may be live."""
        self.attempt(lambda: self.promotion.reload(limit_fraction=1.0))
        standing = self.promotion.flips.recover()
        if standing.applied and standing.tip is not None:
            live = [name for name in NAMES if self.version(name).state() is State.LIVE]
            assert live == [standing.tip.target.version]
        else:
            assert standing.tip is None or self.promotion.flips.unfit(standing.tip.target)
        self.loop.run_until_complete(self.service_redis.aclose())
        self.loop.close()
        self.client.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _name(self, generation: int, target: Target) -> None:
        """A generation names one snapshot, for ever."""
        assert self.named.setdefault(generation, target) == target


def _content(version: Version, manifest: Manifest) -> str:
    return manifest.version


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five sealed versions; every run has a copy."""
    root = tmp_path_factory.mktemp("built")
    for number in range(len(NAMES)):
        build_tiny_snapshot(str(root), world=tiny_world(users=4, items=40), k=5, generation=number)
    return root


@pytest.fixture
def server() -> Iterator[RedisProcess]:
    server = new_redis()
    yield server
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)


def test_whatever_happens_journal_alias_reader_and_copies_hold_what_they_promise(
    built: Path, server: RedisProcess
) -> None:
    class Machine(FlipsMachine):
        def __init__(self) -> None:
            super().__init__(built, server.url)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=sized(30, full=300),
            stateful_step_count=sized(30, full=50),
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
