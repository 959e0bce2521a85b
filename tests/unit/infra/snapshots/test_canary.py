"""A canary beside the live snapshot: how it begins and ends, what it forbids, what survives a kill, and what keeps its copy."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.contracts.canaries import CanaryMode
from infra.contracts.errors import (
    CanaryRuns,
    FlipFenced,
    InvalidRequest,
    MoveNotAllowed,
    NotEnoughRoom,
    SnapshotNotFound,
    SnapshotNotLoaded,
)
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import Alias, FlipKind, Manifest, State, Target
from infra.snapshots import keys
from infra.snapshots.retention import Kept, prune
from infra.snapshots.serving_copy import LoadReport, ServingCopy
from tests.fixtures.service import Stage
from tests.fixtures.tiny_snapshot import RANKING
from tests.unit.infra.snapshots.scenes import ALL, STEPS, back, go, now, path, ready, states, version
from tests.unit.infra.snapshots.test_flips import killed_at


def start(
    stage: Stage, name: str, *, fraction: float = 0.2, mode: CanaryMode = CanaryMode.CANARY, force: bool = True
) -> Alias:
    return stage.promotion.start_canary(version(stage, name), fraction, mode, actor="t", reason="try it", force=force)


def end(stage: Stage, name: str, *, refused: bool = False) -> Alias:
    return stage.promotion.end_canary(VersionName(name), actor="t", reason="enough", refused=refused)


def running(stage: Stage) -> str | None:
    """The canary, by Redis and by the journal, which must agree."""
    alias, standing = stage.promotion.alias.read(), stage.promotion.flips.look()
    assert alias is not None and standing.applied
    assert alias.canary == standing.canary
    return alias.canary.version if alias.canary else None


def test_a_canary_takes_a_generation_and_leaves_what_is_live_and_its_date(stage: Stage) -> None:
    go(stage, "v1")
    before = stage.promotion.alias.read()
    ready(stage, "v2")
    alias = start(stage, "v2")
    assert before is not None
    assert (now(stage), running(stage), path(stage)) == (("v1", 2), "v2", ["v1"])
    assert (alias.flipped_at, alias.actor, alias.reason) == (before.flipped_at, before.actor, before.reason)
    assert stage.promotion.alias.read() == alias
    assert states(stage)["v2"] is State.CANARY
    record = stage.promotion.flips.journal.read(2)
    assert (record.kind, record.actor, record.reason) == (FlipKind.CANARY, "t", "try it")


@pytest.mark.parametrize(("refused", "state"), [(False, State.VALIDATED), (True, State.ROLLED_BACK)])
def test_its_end_leaves_what_is_live_and_records_how_it_ended(stage: Stage, refused: bool, state: State) -> None:
    go(stage, "v1")
    ready(stage, "v2")
    start(stage, "v2")
    end(stage, "v2", refused=refused)
    assert (now(stage), running(stage), states(stage)["v2"]) == (("v1", 3), None, state)
    start(stage, "v2")
    assert running(stage) == "v2", "what was found worse, or ended, may be tried again"


def test_the_canary_that_passed_goes_live_unfenced(stage: Stage) -> None:
    go(stage, "v1")
    ready(stage, "v2")
    start(stage, "v2", force=False)
    stage.promotion.flip(version(stage, "v2"), actor="canary", reason="it passed")
    assert (now(stage), running(stage), path(stage)) == (("v2", 3), None, ["v1", "v2"])
    assert (states(stage)["v1"], states(stage)["v2"]) == (State.RETIRED, State.LIVE)


def test_a_start_is_fenced_like_a_flip(stage: Stage) -> None:
    go(stage, "v1", "v2")
    back(stage)
    ready(stage, "v3")
    with pytest.raises(FlipFenced, match="the build of v3 began at generation 2"):
        start(stage, "v3", force=False)
    assert (running(stage), states(stage)["v3"]) == (None, State.VALIDATED)


def test_while_one_runs_another_version_neither_goes_live_nor_is_tried(stage: Stage) -> None:
    go(stage, "v1")
    ready(stage, "v2", "v3")
    start(stage, "v2")
    with pytest.raises(CanaryRuns, match=r"the canary of v2 runs on 0\.2 of the users .* canary end .*--version v2"):
        stage.promotion.flip(version(stage, "v3"), actor="t", reason="r")
    with pytest.raises(CanaryRuns):
        start(stage, "v3")
    assert (now(stage), running(stage)) == (("v1", 2), "v2")


def test_a_flip_on_purpose_and_a_rollback_end_it(stage: Stage) -> None:
    go(stage, "v1", "v2")
    ready(stage, "v3", "v4")
    start(stage, "v3")
    back(stage)
    assert (now(stage), running(stage), states(stage)["v3"]) == (("v1", 4), None, State.VALIDATED)
    start(stage, "v3")
    stage.promotion.flip(version(stage, "v4"), actor="t", reason="r", force=True)
    assert (now(stage), running(stage), states(stage)["v3"]) == (("v4", 6), None, State.VALIDATED)


def test_starting_it_again_as_it_runs_changes_nothing(stage: Stage) -> None:
    go(stage, "v1")
    ready(stage, "v2")
    assert start(stage, "v2") == start(stage, "v2")
    with pytest.raises(CanaryRuns):
        start(stage, "v2", fraction=0.3)
    assert now(stage) == ("v1", 2)


def test_what_cannot_be_tried_is_refused_with_the_mend(stage: Stage) -> None:
    ready(stage, "v1")
    with pytest.raises(SnapshotNotFound, match=r"no live snapshot to try v1 beside.*promote --version v1"):
        start(stage, "v1")
    go(stage, "v2")
    with pytest.raises(MoveNotAllowed, match="v2 is LIVE and cannot become CANARY"):
        start(stage, "v2")
    with pytest.raises(MoveNotAllowed, match="v3 is STAGED and cannot become CANARY"):
        start(stage, "v3")
    for fraction in (0.0, 0.6, float("nan")):
        with pytest.raises(InvalidRequest, match="wanted more than 0 and at most"):
            start(stage, "v1", fraction=fraction)
    with pytest.raises(MoveNotAllowed, match="no canary runs"):
        end(stage, "v1")
    start(stage, "v1", fraction=1.0, mode=CanaryMode.SHADOW)
    with pytest.raises(MoveNotAllowed, match="the canary of v1 runs"):
        end(stage, "v3")


def test_records_that_are_not_those_validated_are_shown_to_nobody(stage: Stage) -> None:
    go(stage, "v1")
    ready(stage, "v2")
    key = keys.user_record(RANKING, VersionName("v2"), "u1")
    stage.client.setrange(key, 0, b"?")
    with pytest.raises(SnapshotNotLoaded, match="the record of user 'u1' has another byte"):
        start(stage, "v2")
    assert running(stage) is None


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("move", ["start", "end", "refuse"])
def test_killed_before_any_step_it_is_whole_or_nothing_and_a_rerun_completes_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, step: str, move: str
) -> None:
    go(stage, "v1")
    ready(stage, "v2")
    if move != "start":
        start(stage, "v2")
    before = now(stage)
    actions: dict[str, Callable[[], object]] = {
        "start": lambda: start(stage, "v2"),
        "end": lambda: end(stage, "v2"),
        "refuse": lambda: end(stage, "v2", refused=True),
    }
    killed_at(monkeypatch, step, actions[move])
    assert before is not None
    assert now(stage) == (("v1", before[1] + 1) if step == "settle" else before)
    stage.promotion.flips.recover()
    if step == "intend":
        actions[move]()
    assert now(stage) == ("v1", before[1] + 1), "once, whoever completed it"
    assert running(stage) == ("v2" if move == "start" else None)
    wanted = {"start": State.CANARY, "end": State.VALIDATED, "refuse": State.ROLLED_BACK}[move]
    assert states(stage)["v2"] is wanted


def test_a_canary_whose_snapshot_is_gone_before_it_was_applied_is_voided(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(stage, "v1")
    ready(stage, "v2")
    killed_at(monkeypatch, "apply", lambda: start(stage, "v2"))
    stage.promotion.store.remove(VersionName("v2"))
    stage.promotion.flips.recover()
    assert (now(stage), running(stage)) == (("v1", 3), None)
    assert stage.promotion.flips.journal.tip().record == stage.promotion.flips.journal.read(3)


def test_its_copy_and_its_files_are_kept_while_it_runs_and_not_longer(stage: Stage) -> None:
    go(stage, "v1", "v2", "v3", "v4")
    back(stage, "v1")
    start(stage, "v2")
    none = Kept(snapshots=1, flips=1, age=timedelta(0))
    stage.promotion.collect(keep=2)
    later = datetime.now(UTC) + timedelta(days=1)
    prune(stage.promotion, none, now=later)
    assert set(stage.promotion.loaded()) >= {"v1", "v2"}
    assert "v2" in stage.promotion.store.versions()
    assert stage.promotion.leases.claim(VersionName("v2")) is False
    end(stage, "v2", refused=True)
    assert "v2" in stage.promotion.collect(keep=2)


def test_an_emptied_redis_gets_it_back_before_the_alias_names_it(stage: Stage) -> None:
    go(stage, "v1")
    ready(stage, "v2")
    alias = start(stage, "v2")
    stage.client.flushall()
    done = stage.promotion.reload(limit_fraction=ALL)
    assert (running(stage), stage.promotion.alias.read()) == ("v2", alias)
    assert set(done.loads) == {"v1", "v2"}
    assert stage.promotion.loaded() == ["v1", "v2"]


def test_an_emptied_redis_and_a_damaged_canary_end_it(stage: Stage) -> None:
    go(stage, "v1")
    ready(stage, "v2")
    start(stage, "v2")
    stage.client.flushall()
    target = version(stage, "v2")
    damaged = next(name for name in target.manifest().parts["candidates"].files)
    target.storage.write(damaged, target.storage.read(damaged)[:-9])
    stage.promotion.reload(limit_fraction=ALL)
    assert (now(stage), running(stage)) == (("v1", 3), None)
    assert states(stage)["v2"] is State.VALIDATED


def test_what_is_recovered_names_no_canary_whose_copy_is_missing(stage: Stage) -> None:
    """An emptied Redis, of which so far only the live version was loaded again."""
    go(stage, "v1")
    ready(stage, "v2")
    start(stage, "v2")
    stage.client.flushall()
    stage.promotion.load(version(stage, "v1"), limit_fraction=ALL)
    standing = stage.promotion.flips.recover()
    assert standing.alias is None, "its users would meet a version that is not there"
    stage.promotion.reload(limit_fraction=ALL)
    assert running(stage) == "v2"


def test_a_canary_for_which_there_is_no_room_does_not_keep_the_live_one_away(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(stage, "v1")
    ready(stage, "v2")
    start(stage, "v2")
    stage.client.flushall()
    load = ServingCopy.load

    def no_room(copy: ServingCopy, manifest: Manifest, **named: Any) -> LoadReport:
        if manifest.version == "v2":
            raise NotEnoughRoom("full")
        return load(copy, manifest, **named)

    monkeypatch.setattr(ServingCopy, "load", no_room)
    stage.promotion.reload(limit_fraction=ALL)
    assert (now(stage), running(stage), states(stage)["v2"]) == (("v1", 3), None, State.VALIDATED)


def test_a_rollback_to_what_is_live_ends_the_canary_beside_it(stage: Stage) -> None:
    go(stage, "v1")
    ready(stage, "v2")
    start(stage, "v2")
    assert back(stage, "v1").version == "v1"
    assert (now(stage), running(stage)) == (("v1", 3), None)


def test_a_rollback_that_was_meant_from_another_version_is_fenced(stage: Stage) -> None:
    go(stage, "v1", "v2", "v3")
    meant = Target(VersionName("v2"), version(stage, "v2").manifest().digest)
    with pytest.raises(FlipFenced, match="v3 is live; this was meant to go back from v2"):
        stage.promotion.rollback(VersionName("v1"), actor="guard", reason="r", limit_fraction=ALL, only_from=meant)
    assert now(stage) == ("v3", 3)


def test_where_the_live_version_and_its_canary_are_voided_both_states_say_so(stage: Stage) -> None:
    go(stage, "v1", "v2")
    ready(stage, "v3")
    alias = start(stage, "v3")
    stage.client.flushall()
    damaged = version(stage, "v2")
    file = next(iter(damaged.manifest().parts["candidates"].files))
    damaged.storage.write(file, damaged.storage.read(file)[:-9])
    stage.promotion.reload(limit_fraction=ALL)
    alive = now(stage)
    assert alive is not None and (alive[0], running(stage)) == ("v1", None)
    assert alive[1] > alias.generation
    assert states(stage)["v3"] is State.VALIDATED
    stage.promotion.load(version(stage, "v3"), limit_fraction=ALL)
    start(stage, "v3")
    assert running(stage) == "v3"


def test_a_repair_that_leaves_what_is_live_keeps_its_date_and_hand(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(stage, "v1")
    before = stage.promotion.alias.read()
    ready(stage, "v2")
    killed_at(monkeypatch, "apply", lambda: start(stage, "v2"))
    stage.promotion.store.remove(VersionName("v2"))
    stage.promotion.flips.recover()
    after = stage.promotion.alias.read()
    assert before is not None and after is not None
    assert (after.generation, after.flipped_at, after.actor) == (3, before.flipped_at, before.actor)
