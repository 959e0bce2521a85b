"""Flips that are stopped between their steps, or meet a Redis that forgot: what is live, and what is said."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from infra.config.settings import CHECKOUT
from infra.contracts.errors import FlipFenced, SnapshotCorrupt, SnapshotNotFound
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import Alias, FlipKind, FlipRecord, State, Target
from infra.snapshots import flips, keys
from infra.snapshots.alias import same
from infra.snapshots.flips import Flips
from tests.fixtures.redis_server import RedisProcess
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import RANKING
from tests.unit.infra.snapshots.scenes import (
    ALL,
    STEPS,
    back,
    go,
    now,
    path,
    ready,
    remember,
    remembered,
    states,
    version,
)


class Killed(BaseException):
    """The process ends here: nothing of ours may catch it."""


def killed_at(monkeypatch: pytest.MonkeyPatch, step: str, action: Callable[[], object]) -> None:
    """Run the action, and end it where it would begin that step of its own flip."""
    own, intend = [0], Flips.intend

    def intending(flips: Flips, *args: Any, **named: Any) -> FlipRecord:
        own[0] = flips.journal.tip().highest + 1
        if step == "intend":
            raise Killed(step)
        return intend(flips, *args, **named)

    def kill_own(real: Callable[..., object]) -> Callable[..., object]:
        def stepping(flips: Flips, record: FlipRecord, **named: Any) -> object:
            if record.generation == own[0]:
                raise Killed(step)
            return real(flips, record, **named)

        return stepping

    with monkeypatch.context() as patched:
        patched.setattr(Flips, "intend", intending)
        if step != "intend":
            patched.setattr(Flips, step, kill_own(getattr(Flips, step)))
        with pytest.raises(Killed):
            action()


# -- killed between the steps


@pytest.mark.parametrize("step", STEPS)
def test_a_flip_killed_before_any_step_is_whole_or_nothing_and_a_rerun_completes_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    go(stage, "v1")
    ready(stage, "v2")

    def flip() -> Alias:
        return stage.promotion.flip(version(stage, "v2"), actor="t", reason="r")

    killed_at(monkeypatch, step, flip)
    assert now(stage) == (("v2", 2) if step == "settle" else ("v1", 1)), "a reader sees one or the other"
    assert flip().version == "v2"
    assert now(stage) == ("v2", 2), "a rerun takes no second generation"
    assert path(stage) == ["v1", "v2"]
    assert (states(stage)["v1"], states(stage)["v2"]) == (State.RETIRED, State.LIVE)
    assert stage.promotion.flips.look().applied


@pytest.mark.parametrize("step", STEPS)
def test_a_rollback_killed_before_any_step_is_completed_by_whoever_comes_next(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    go(stage, "v1", "v2")
    killed_at(monkeypatch, step, lambda: back(stage))
    stage.promotion.collect(keep=2)
    journalled = step != "intend"
    assert now(stage) == (("v1", 3) if journalled else ("v2", 2))
    assert path(stage) == (["v1"] if journalled else ["v1", "v2"])
    left = State.ROLLED_BACK if journalled else State.LIVE
    assert states(stage)["v2"] is left


@pytest.mark.parametrize("step", STEPS)
def test_a_rollback_that_was_killed_may_be_repeated_and_goes_one_version_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    go(stage, "v1", "v2", "v3")
    killed_at(monkeypatch, step, lambda: back(stage))
    assert (back(stage).version, now(stage)) == ("v2", ("v2", 4))
    assert (back(stage).version, now(stage)) == ("v1", ("v1", 5))


def test_a_repeated_rollback_loads_the_copy_that_redis_lost_meanwhile(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(stage, "v1", "v2", "v3")
    killed_at(monkeypatch, "apply", lambda: back(stage))
    stage.client.delete(keys.load_marker(RANKING, VersionName("v2")))
    assert (back(stage).version, now(stage)) == ("v2", ("v2", 4))


@pytest.mark.parametrize(
    ("step", "first", "seen"), [("intend", 1, ("v1", 1)), ("apply", 2, ("v1", 1)), ("settle", 2, ("v2", 2))]
)
def test_kill_9_in_a_flip_leaves_the_alias_on_one_version_and_the_command_may_be_repeated(
    stage: Stage, step: str, first: int, seen: tuple[str, int]
) -> None:
    """first: the generation that the step's argument has: the standing's or the record's."""
    go(stage, "v1")
    ready(stage, "v2")
    variables = {**os.environ, "HEADGATE_STORE": str(stage.root), "HEADGATE_REDIS_URL": stage.redis_url}
    words = ["promote", "--version", "v2", "--reason", "r"]
    code = (
        "import os, sys\n"
        "from infra.snapshots import __main__ as commands, flips\n"
        f"real = flips.Flips.{step}\n"
        "def kill(self, what, *args, **named):\n"
        "    if getattr(what, 'generation', 1) == first: os.kill(os.getpid(), 9)\n"
        "    return real(self, what, *args, **named)\n"
        f"first, flips.Flips.{step} = {first}, kill\n"
        f"sys.argv = ['infra.snapshots', *{words!r}]\n"
        "commands.app()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, env=variables, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert now(stage) == seen
    command = [sys.executable, "-m", "infra.snapshots", *words]
    subprocess.run(command, cwd=CHECKOUT, env=variables, check=True, capture_output=True)
    assert now(stage) == ("v2", 2)
    assert stage.promotion.flips.look().applied


def test_reading_reports_a_flip_that_was_stopped_and_repairs_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(stage, "v1")
    ready(stage, "v2")
    killed_at(monkeypatch, "apply", lambda: stage.promotion.flip(version(stage, "v2"), actor="t", reason="r"))
    standing = stage.promotion.flips.look()
    assert "the journal says predictions_v2 at generation 2, the alias says predictions_v1 at generation 1" in (
        standing.problem
    )
    assert now(stage) == ("v1", 1)


# -- voided


def test_a_flip_whose_snapshot_may_no_longer_go_live_is_voided_and_its_generation_is_used_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(stage, "v1")
    ready(stage, "v2", "v3")
    killed_at(monkeypatch, "apply", lambda: stage.promotion.flip(version(stage, "v2"), actor="t", reason="r"))
    version(stage, "v2").record(State.REJECTED, actor="gate", reason="judged again")
    stage.promotion.flips.recover()
    assert now(stage) == ("v1", 3), "what was live has a generation of its own: no generation names two versions"
    assert path(stage) == ["v1"]
    assert states(stage)["v2"] is State.REJECTED
    (repair, _), (voided, void), *_ = stage.promotion.flips.journal.newest(3)
    assert (repair.kind, voided.target.version) == (FlipKind.REPAIR, "v2")
    assert void is not None and "ranking/v2 is REJECTED" in void.reason
    assert stage.promotion.flip(version(stage, "v3"), actor="t", reason="r", force=True).generation == 4


def test_the_late_publisher_of_a_voided_flip_is_fenced(stage: Stage) -> None:
    go(stage, "v1")
    ready(stage, "v2")
    moves = stage.promotion.flips
    standing = moves.look()
    digest = version(stage, "v2").manifest().digest
    target = Target(VersionName("v2"), digest)
    record = moves.intend(standing, (*standing.path, target), kind=FlipKind.FLIP, actor="t", reason="r")
    version(stage, "v2").record(State.REJECTED, actor="gate", reason="judged again")
    stage.promotion.flips.recover()
    with pytest.raises(FlipFenced, match="the alias says predictions_v1 at generation 3"):
        moves.apply(record, seen=standing.alias)


def test_a_publisher_that_applies_between_the_void_and_its_repair_is_put_right(stage: Stage) -> None:
    go(stage, "v1")
    ready(stage, "v2")
    moves = stage.promotion.flips
    standing = moves.look()
    target = Target(VersionName("v2"), version(stage, "v2").manifest().digest)
    record = moves.intend(standing, (*standing.path, target), kind=FlipKind.FLIP, actor="t", reason="r")
    version(stage, "v2").record(State.REJECTED, actor="gate", reason="judged again")
    moves.journal.void(record.generation, actor="t", reason="judged again")
    moves.apply(record, seen=standing.alias)
    assert now(stage) == ("v2", 2)
    assert moves.recover().applied
    assert now(stage) == ("v1", 3)


def test_voids_go_back_to_the_newest_that_may_be_live_and_end_where_none_may(stage: Stage) -> None:
    go(stage, "v1", "v2", "v3")
    stage.client.flushall()
    for name in ("v3", "v2"):
        shutil.rmtree(stage.root / f"ranking/snapshots/{name}")
    stage.promotion.reload(limit_fraction=ALL)
    assert now(stage) == ("v1", 4)
    stage.client.flushall()
    shutil.rmtree(stage.root / "ranking/snapshots/v1")
    with pytest.raises(SnapshotNotFound):
        stage.promotion.reload(limit_fraction=ALL)
    assert now(stage) is None


def test_a_snapshot_whose_files_are_damaged_is_voided_by_a_reload_and_the_one_before_takes_its_place(
    stage: Stage,
) -> None:
    go(stage, "v1", "v2", "v3")
    stage.client.flushall()
    for name in ("v3", "v2"):
        for file in (stage.root / f"ranking/snapshots/{name}").rglob("candidates/part-0.parquet"):
            file.write_bytes(b"nothing")
    done = stage.promotion.reload(limit_fraction=ALL)
    assert done.after.applied
    assert path(stage) == ["v1"]
    assert now(stage) == ("v1", 5)


def test_a_live_snapshot_whose_files_are_damaged_is_not_moved_away_from_without_an_operator(stage: Stage) -> None:
    go(stage, "v1", "v2")
    for file in (stage.root / "ranking/snapshots/v2").rglob("candidates/part-0.parquet"):
        file.write_bytes(b"nothing")
    stage.client.delete(keys.load_marker(RANKING, VersionName("v2")))
    with pytest.raises(SnapshotCorrupt):
        stage.promotion.reload(limit_fraction=ALL)
    assert now(stage) == ("v2", 2)


# -- Redis forgot


def test_an_empty_redis_is_rebuilt_from_files_and_journal(stage: Stage) -> None:
    go(stage, "v1", "v2", "v3")
    before = stage.promotion.alias.read()
    stage.client.flushall()
    done = stage.promotion.reload(limit_fraction=ALL)
    assert list(done.loads) == ["v3", "v2"]
    after = stage.promotion.alias.read()
    assert before is not None and after is not None and same(before, after), "the same flip: no generation is used up"
    assert back(stage).version == "v2"


def test_an_older_redis_is_brought_forward(stage: Stage) -> None:
    go(stage, "v1")
    older = remembered(stage)
    go(stage, "v2")
    remember(stage, older)
    assert now(stage) == ("v1", 1)
    stage.promotion.flips.recover()
    assert now(stage) == ("v2", 2)


def test_a_rollback_on_an_empty_redis_loads_only_what_it_goes_to(stage: Stage) -> None:
    go(stage, "v1", "v2")
    stage.client.flushall()
    assert (back(stage).version, now(stage)) == ("v1", ("v1", 3))
    assert stage.promotion.loaded() == ["v1"]
    assert path(stage) == ["v1"]


def test_a_rollback_to_what_was_live_when_redis_forgot_is_a_repair(stage: Stage) -> None:
    go(stage, "v1", "v2")
    stage.client.flushall()
    assert back(stage, "v2").generation == 2
    assert path(stage) == ["v1", "v2"]


def test_redis_restarted_empty_never_counts_anew(built: Path, tmp_path: Path, own_redis: RedisProcess) -> None:
    shutil.copytree(built, tmp_path / "store")
    stage = Stage(tmp_path / "store", own_redis.url)
    go(stage, "v1", "v2")
    own_redis.kill()
    shutil.rmtree(own_redis.folder / "appendonlydir")
    own_redis.start()
    assert now(stage) is None
    assert stage.promotion.open(actor="t").generation_at_start == 2
    go(stage, "v3")
    assert now(stage) == ("v3", 3)
    assert path(stage) == ["v1", "v2", "v3"]


def test_an_alias_from_before_there_was_a_journal_is_kept_and_counted_on(stage: Stage) -> None:
    go(stage, "v1", "v2")
    shutil.rmtree(stage.root / "ranking/journal")
    standing = stage.promotion.flips.recover()
    assert standing.ahead and "the alias says predictions_v2 at generation 2, the journal ends at generation 0" in (
        standing.problem
    )
    go(stage, "v3")
    assert now(stage) == ("v3", 3)
    assert path(stage) == ["v2", "v3"]


def test_an_alias_that_points_to_a_version_that_is_gone_does_not_stop_a_rollback(stage: Stage) -> None:
    go(stage, "v1", "v2")
    shutil.rmtree(stage.root / "ranking/snapshots/v2")
    assert (back(stage).version, now(stage)) == ("v1", ("v1", 3))


def test_with_memory_full_a_rollback_is_journalled_and_applied(stage: Stage) -> None:
    go(stage, "v1", "v2")
    stage.client.config_set("maxmemory", 1)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        stage.client.set("anything", "x")
    assert back(stage).version == "v1"
    assert stage.promotion.flips.look().applied


# -- a rollback and a build


def test_a_rollback_in_the_middle_of_a_build_fences_it_and_it_stays_validated(stage: Stage) -> None:
    go(stage, "v1", "v2")
    ready(stage, "v3")
    back(stage)
    with pytest.raises(FlipFenced, match="began at generation 2"):
        stage.promotion.flip(version(stage, "v3"), actor="build", reason="daily")
    assert (now(stage), states(stage)["v3"]) == (("v1", 3), State.VALIDATED)
    assert len(list(stage.promotion.flips.journal.newest(10))) == 3, "a fenced flip takes no generation"


def test_a_long_path_is_cut_and_the_journal_s_end_alone_is_read(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flips, "_LONGEST_PATH", 5)
    go(stage, "v1", "v2")
    for step in range(10):
        stage.promotion.flip(version(stage, f"v{step % 2 + 1}"), actor="t", reason="r", force=True)
    assert path(stage) == ["v2", "v1", "v2", "v1", "v2"]
    journal, reads = stage.promotion.flips.journal, list[int]()
    read = journal.read

    def counted(generation: int) -> FlipRecord:
        reads.append(generation)
        return read(generation)

    monkeypatch.setattr(journal, "read", counted)
    tip = journal.tip()
    assert reads == [12]
    assert tip.record is not None and tip.record.generation == tip.highest == 12
