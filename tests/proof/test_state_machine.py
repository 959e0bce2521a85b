"""Whatever operators, readers and faults do, in any order: one pointer, one version an answer, nothing in use is deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from infra.contracts.canaries import CanaryMode
from infra.contracts.errors import FlipFenced, HeadgateError
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import Alias, FlipKind, FlipRecord, State, Target
from infra.snapshots import flips
from infra.snapshots.promotion import Promotion
from tests.fixtures.mortal import Killed, Life
from tests.fixtures.proof import sized
from tests.fixtures.redis_server import RedisProcess
from tests.proof.world import World

_MOST_VERSIONS = 6
_RESTARTS = 1
"""In one run: a restart takes longer than all other steps together."""

lives = st.one_of(st.none(), st.integers(0, 25))
"""Before which of its steps an operator is killed; half of them are not, or are done before."""

skews = st.sampled_from([timedelta(0), timedelta(0), timedelta(days=-30), timedelta(days=400)])
any_number = st.integers(0, 10_000)


class Snapshots(RuleBasedStateMachine):
    """The steps; `World` says what must hold after each of them."""

    server: RedisProcess

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.server)
        self.stopped: list[tuple[FlipRecord, Alias | None]] = []
        self.restarts = 0
        self.full = False

    def teardown(self) -> None:
        self.world.close()

    # -- operators

    @initialize()
    def two_versions_were_live(self) -> None:
        for _ in range(2):
            version = self.world.build()
            version.record(State.VALIDATED, actor="gate", reason="passed")
            self.world.operator().load(version, limit_fraction=1.0)
            self.world.operator().flip(version, actor="build", reason="daily")
        for reader in self.world.readers:
            self.world.look(reader)
        self.world.lag()

    @precondition(lambda self: len(self.world.versions) < _MOST_VERSIONS)
    @rule()
    def build(self) -> None:
        self.world.build()

    @precondition(lambda self: len(self.world.versions) < _MOST_VERSIONS)
    @rule(dies=st.none() | st.integers(0, 45), again=st.booleans(), skew=skews)
    def publish(self, dies: int | None, again: bool, skew: timedelta) -> None:
        """A refresh from its begin to its end."""
        version = self.world.build()
        version.record(State.VALIDATED, actor="gate", reason="passed")

        def done(operator: Promotion) -> Alias:
            operator.load(version, limit_fraction=1.0)
            return operator.flip(version, actor="build", reason="daily")

        with clock_off_by(skew):
            self.operate(done, dies=dies, again=again)

    @rule(at=any_number, passes=st.sampled_from([True, True, True, False]))
    def validate(self, at: int, passes: bool) -> None:
        """Once a flip named a version it is not judged again: then a stopped flip might still reach the alias."""
        waiting = [
            version
            for version in map(self.world.store.get, self.world.versions)
            if version.state() in (State.STAGED, State.VALIDATED, State.REJECTED)
            and version.version not in {record.subject for record in self.world.flips.values()}
        ]
        if waiting:
            verdict = State.VALIDATED if passes else State.REJECTED
            waiting[at % len(waiting)].record(verdict, actor="gate", reason="judged")

    @rule(at=any_number, dies=lives, again=st.booleans())
    def load(self, at: int, dies: int | None, again: bool) -> None:
        version = self.world.store.get(self.chosen(at))

        def done(operator: Promotion) -> object:
            operator.load(version, limit_fraction=1.0)
            return version.version in self.world.complete()

        outcome = self.operate(done, dies=dies, again=again)
        assert outcome is not False, "a load that ended well left an incomplete copy"

    @rule(at=any_number, force=st.booleans(), dies=lives, again=st.booleans(), skew=skews)
    def flip(self, at: int, force: bool, dies: int | None, again: bool, skew: timedelta) -> None:
        name, before = self.chosen(at), self.world.alias()

        def done(operator: Promotion) -> Alias:
            return operator.flip(operator.store.get(name), actor="build", reason="r", force=force)

        with clock_off_by(skew):
            outcome = self.operate(done, dies=dies, again=again)
        if isinstance(outcome, Alias):
            assert outcome.version == name and self.world.alias() == outcome
            assert before is None or outcome.generation > before.generation or outcome == before
            assert outcome == before or name in self.world.marked(), "it went live without a copy"

    @rule(at=st.none() | any_number, dies=lives, skew=skews)
    def roll_back(self, at: int | None, dies: int | None, skew: timedelta) -> None:
        """Without a version a second one goes further back, so that it is not done again here once it was killed."""
        wanted = None if at is None else self.chosen(at)
        path, complete = self.world.path(), self.world.complete()

        def done(operator: Promotion) -> Alias:
            return operator.rollback(wanted, actor="on call", reason="r", limit_fraction=1.0)[1]

        with clock_off_by(skew):
            outcome = self.operate(done, dies=dies, again=wanted is not None)
        if isinstance(outcome, Alias):
            assert self.world.alias() == outcome
            assert outcome.version == wanted or wanted is None
        elif wanted in complete and wanted in path and not self.world.client.exists(self.claims):
            assert outcome is None, f"what was live and is loaded could not be rolled back to: {outcome}"

    @rule(
        at=any_number,
        mode=st.sampled_from([CanaryMode.CANARY, CanaryMode.CANARY, CanaryMode.SHADOW]),
        force=st.booleans(),
        dies=lives,
        again=st.booleans(),
        skew=skews,
    )
    def start_canary(
        self, at: int, mode: CanaryMode, force: bool, dies: int | None, again: bool, skew: timedelta
    ) -> None:
        name, before = self.chosen(at), self.world.alias()

        def done(operator: Promotion) -> Alias:
            version = operator.store.get(name)
            return operator.start_canary(version, 0.5, mode, actor="t", reason="r", force=force)

        with clock_off_by(skew):
            outcome = self.operate(done, dies=dies, again=again)
        if isinstance(outcome, Alias):
            assert self.world.alias() == outcome
            assert outcome.canary is not None and outcome.canary.version == name
            assert outcome == before or name in self.world.marked(), "users see a version without a copy"

    @rule(refused=st.booleans(), dies=lives)
    def end_canary(self, refused: bool, dies: int | None) -> None:
        """Done again it would find none; what it had begun is completed by whoever comes next."""
        alias = self.world.alias()
        if alias is None or alias.canary is None:
            return
        name = alias.canary.version

        def done(operator: Promotion) -> Alias:
            return operator.end_canary(name, actor="t", reason="r", refused=refused)

        outcome = self.operate(done, dies=dies, again=False)
        if isinstance(outcome, Alias):
            assert self.world.alias() == outcome and outcome.canary is None

    @rule(keep=st.integers(2, 3), dies=lives)
    def collect(self, keep: int, dies: int | None) -> None:
        world = self.world
        protected, complete = world.in_use(keep=keep), world.complete()
        self.operate(lambda operator: operator.collect(keep=keep), dies=dies, again=False)
        protected |= world.in_use(keep=keep)
        assert protected & complete <= world.complete(), "in use, and deleted"

    @rule(dies=lives)
    def reload(self, dies: int | None) -> None:
        outcome = self.operate(lambda operator: operator.reload(limit_fraction=1.0), dies=dies, again=True)
        if outcome is not None and not isinstance(outcome, BaseException):
            assert self.world.operator().flips.look().applied
            assert set(self.world.path()[-2:]) <= self.world.complete()

    @rule(at=any_number)
    def stop_after_the_journal(self, at: int) -> None:
        """A publisher journals its flip, and is stopped for a while."""
        operator, name = self.world.operator(), self.chosen(at)
        standing, target = operator.flips.look(), Target(name, self.world.store.get(name).manifest().digest)
        if operator.flips.unfit(target) or name not in self.world.complete():
            return
        try:
            record = operator.flips.intend(
                standing, (*standing.path, target), kind=FlipKind.FLIP, actor="slow", reason="r"
            )
        except FlipFenced:
            return
        self.stopped.append((record, standing.alias))

    @precondition(lambda self: self.stopped)
    @rule(at=any_number, settles=st.booleans())
    def go_on(self, at: int, settles: bool) -> None:
        """It goes on, whatever became of its flip meanwhile; or ends before it recorded the states."""
        record, seen = self.stopped.pop(at % len(self.stopped))
        before = self.world.alias()
        try:
            now = self.world.operator().flips.apply(record, seen=seen)
        except FlipFenced:
            assert self.world.alias() == before
            return
        assert now == record.alias and (before in (seen, now))
        if settles:
            self.world.operator().flips.settle(record)

    # -- readers

    @rule(at=any_number)
    def look(self, at: int) -> None:
        self.world.look(self.world.readers[at % 2])

    @rule(at=any_number)
    def begin_a_request(self, at: int) -> None:
        self.world.begin(self.world.readers[at % 2], user=str(at))

    @rule(at=any_number)
    def end_a_request(self, at: int) -> None:
        assert self.world.end(self.world.readers[at % 2]) == []

    @rule(at=any_number)
    def start_a_reader_anew(self, at: int) -> None:
        readers = self.world.readers
        self.world.forget(readers[at % 2])
        readers[at % 2] = self.world.new_reader()
        self.world.look(readers[at % 2])

    # -- faults

    @precondition(lambda self: self.restarts < _RESTARTS)
    @rule(empty=st.booleans())
    def restart_redis(self, empty: bool) -> None:
        self.restarts += 1
        self.world.restart(empty=empty)
        self.full = False

    @rule()
    def lag(self) -> None:
        self.world.lag()

    @precondition(lambda self: not self.full)
    @rule(look=st.booleans())
    def fail_over(self, look: bool) -> None:
        """Readers may look before any operator does."""
        self.world.fail_over()
        for reader in self.world.readers:
            if look:
                self.world.look(reader)

    @rule(at=any_number)
    def evict(self, at: int) -> None:
        self.world.evict(lambda names: names[at % len(names)])

    @rule()
    def fill_or_free_memory(self) -> None:
        self.full = not self.full
        self.world.client.config_set("maxmemory", 1 if self.full else 0)

    # -- what must hold

    @invariant()
    def nothing_is_broken(self) -> None:
        assert self.world.broken() == []

    # -- how an operator works

    claims = "headgate:{ranking}:predictions_claims"

    def chosen(self, at: int) -> VersionName:
        return self.world.versions[at % len(self.world.versions)]

    def operate(self, action: Callable[[Promotion], object], *, dies: int | None, again: bool) -> object:
        """Do it, killed before that step; then, if wanted, once more to its end, and once more, which changes nothing.

        Returns what came out, the error that refused it, or None where it was killed. What was in use and whole stays so.
        """
        world = self.world
        used, before = world.in_use() & world.complete(), world.alias()
        outcome = self._tried(action, Life(dies))
        assert used <= world.complete(), "in use, and no longer whole"
        if outcome is None:
            now = world.alias()
            grew = now is not None and (before is None or now.generation > before.generation)
            assert now == before or (grew and now and world.journalled(now)), "killed, and something else is live"
            if again:
                outcome = self._tried(action, Life())
                after = world.alias()
                repeated = self._tried(action, Life())
                assert type(repeated) is type(outcome), (outcome, repeated)
                assert world.alias() == after, "the same once more, and something else is live"
        return outcome

    def _tried(self, action: Callable[[Promotion], object], life: Life) -> object:
        try:
            return action(self.world.operator(life))
        except Killed:
            return None
        except HeadgateError as error:
            return error


@contextmanager
def clock_off_by(skew: timedelta) -> Iterator[None]:
    """Inside the block the host's clock, as flips see it, goes wrong by so much."""

    class Skewed(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + skew

    with patch.object(flips, "datetime", Skewed):
        yield


def run(server: RedisProcess, *, runs: int, steps: int, phases: tuple[Phase, ...]) -> None:
    """That many runs of at most that many steps; the small size takes the same ones each time."""
    Snapshots.server = server
    chosen = settings(
        max_examples=runs,
        stateful_step_count=steps,
        derandomize=sized(True, full=False),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=phases,
    )
    with patch("os.fsync"):  # processes are killed here, not the machine
        run_state_machine_as_test(Snapshots, settings=chosen)


@pytest.mark.timeout(sized(300, full=7200))
def test_in_any_order_of_steps_and_faults_the_promises_hold(server: RedisProcess) -> None:
    run(server, runs=sized(40, full=1500), steps=sized(30, full=60), phases=(Phase.generate, Phase.shrink))
