"""canary start, status, decide, end, and guard: typed by an operator, against real logs in a real Redis."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from infra.contracts.canaries import CanaryMode
from infra.contracts.events import shard_of
from infra.contracts.exposures import Arm
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import Alias, FlipKind, State
from infra.experiments.filing import newest_look, newest_result
from infra.experiments.judgement import Verdict
from infra.snapshots import keys
from infra.snapshots.promotion import Promotion
from tests.fixtures.redis_server import new_redis
from tests.fixtures.tiny_snapshot import RANKING
from tests.unit.infra.experiments.town import Town

EQUAL, FALLEN = (0.5, 0.5), (0.5, 0.1)
ENOUGH = 1600
HOUR_S = 3600.0


def test_a_canary_is_started_beside_what_is_live(town: Town) -> None:
    said = town("canary", "start", "--version", "v2", "--fraction", "0.2", "--actor", "ada", "--reason", "new ranker")
    assert (said.code, said.result["live"], said.result["generation"]) == (0, "v1", 2)
    assert "v1 live, generation 2; v2 shown to 0.2 of the users" in said.stderr
    assert (town.canary.version, town.canary.fraction, town.canary.mode) == ("v2", 0.2, CanaryMode.CANARY)
    tip = town.promotion.flips.look().tip
    assert tip is not None and (tip.kind, tip.actor, tip.reason) == (FlipKind.CANARY, "ada", "new ranker")
    assert town.state("v2") is State.CANARY


def test_the_fraction_is_the_settings_unless_given_and_none_is_refused(town: Town) -> None:
    assert town("canary", "start", "--version", "v2").error == (
        "error: InvalidRequest: No fraction was given, and HEADGATE_CANARY_FRACTION is 0: no users. Use --fraction 0.05"
    )
    town.set(HEADGATE_CANARY_FRACTION="0.1")
    assert town("canary", "start", "--version", "v2").code == 0
    assert town.canary.fraction == 0.1


def test_without_a_canary_there_is_nothing_to_decide(town: Town) -> None:
    for words in (("decide",), ("status",), ("decide", "--version", "v2"), ("end", "--reason", "x")):
        said = town("canary", *words, "--json")
        assert (said.code, said.result["verdict"], said.stderr) == (0, "none", ""), words
    assert town.alias.generation == 1


def test_a_canary_without_users_waits_and_nothing_moves(town: Town) -> None:
    town.try_out()
    said = town("canary", "decide")
    assert said.result["verdict"] == "waits"
    assert said.result["because"] == "0 users of the canary and 0 beside them; wanted 100 on either side."
    assert "too few users" in said.stderr
    assert town.alias.generation == 2 and newest_result(town.promotion.store.get("v2")) is None


def test_a_look_is_told_and_kept_for_the_page(town: Town) -> None:
    town.try_out()
    town.visits(300, clicks=EQUAL)
    said = town("canary", "decide", "--json")
    assert (said.result["verdict"], said.stderr) == ("waits", "")
    assert said.result["live_users"] + said.result["canary_users"] == 300  # type: ignore[operator]
    clicks = said.result["metrics"][0]  # type: ignore[index]
    assert clicks["live_mean"] == pytest.approx(0.5, abs=0.01) and "path" not in clicks
    told = newest_look(town.client, RANKING)
    assert told is not None and (told.generation, told.verdict) == (2, Verdict.WAITS)
    assert told.summary == said.result["summary"]


def test_status_tells_the_same_and_keeps_nothing(town: Town) -> None:
    town.try_out()
    town.visits(ENOUGH, clicks=FALLEN)
    said = town("canary", "status")
    assert said.result["verdict"] == "rolled_back"
    for told in ("surely worse", "click-through", "users of the canary", "v2 rolled_back: Surely worse"):
        assert told in said.stderr, told
    assert town.alias.generation == 2 and not town.client.exists(keys.canary_look(RANKING))


def test_one_that_is_no_worse_goes_live_by_itself(town: Town) -> None:
    town.try_out()
    town.visits(ENOUGH, clicks=EQUAL)
    said = town("canary", "decide")
    assert (said.code, said.result["verdict"], said.result["version"]) == (0, "promoted", "v2")
    assert (town.alias.version, town.alias.canary, town.alias.actor) == ("v2", None, "canary")
    assert town.alias.reason == f"canary of generation 2: {said.result['summary']}"
    assert (town.state("v2"), town.state("v1")) == (State.LIVE, State.RETIRED)
    assert str(said.result["page"]).endswith("/v2/canary/000000000002.html")


def test_one_that_is_worse_is_rolled_back_by_itself(town: Town) -> None:
    town.try_out()
    town.visits(ENOUGH, clicks=FALLEN)
    said = town("canary", "decide")
    assert said.result["verdict"] == "rolled_back" and "Surely worse" in str(said.result["because"])
    assert (town.alias.version, town.alias.canary, town.state("v2")) == ("v1", None, State.ROLLED_BACK)
    tip = town.promotion.flips.look().tip
    assert tip is not None and (tip.kind, tip.actor) == (FlipKind.CANARY_ROLLBACK, "canary")


def test_one_that_is_not_decided_in_its_time_is_ended_and_not_live(town: Town) -> None:
    town.try_out()
    town.visits(300, clicks=EQUAL)
    town.set(HEADGATE_CANARY_HOURS="0.0000001")
    said = town("canary", "decide")
    assert said.result["verdict"] == "expired"
    assert (town.alias.version, town.alias.canary, town.state("v2")) == ("v1", None, State.VALIDATED)
    assert str(said.result["because"]).startswith("Not decided within 1e-07 hours. Neither")


def test_how_it_ended_is_told_again_to_whoever_asks_for_that_version(town: Town) -> None:
    town.try_out()
    town.visits(ENOUGH, clicks=FALLEN)
    first = town("canary", "decide", "--version", "v2", "--generation", "2").result
    again = town("canary", "decide", "--version", "v2", "--generation", "2").result
    assert again == first and town.alias.generation == 3
    assert town("canary", "decide", "--version", "v2").result == first
    assert town("canary", "decide").result["verdict"] == "none"
    assert town("canary", "decide", "--version", "v2", "--generation", "9").result["verdict"] == "none"
    assert town("canary", "decide", "--version", "v3").result["verdict"] == "none"


def test_the_canary_of_another_version_is_not_decided_for_it(town: Town) -> None:
    town.try_out()
    town.visits(ENOUGH, clicks=FALLEN)
    assert town("canary", "decide", "--version", "v3").result["verdict"] == "none"
    assert town("canary", "decide", "--version", "v2", "--generation", "1").result["verdict"] == "none"
    assert town("canary", "end", "--version", "v3", "--reason", "x").result["moved"] is False
    assert town.canary.version == "v2"


@pytest.mark.parametrize(
    ("clicks", "step", "verdict"), [(EQUAL, "flip", "promoted"), (FALLEN, "end_canary", "rolled_back")]
)
def test_one_stopped_between_filing_and_acting_acts_by_what_was_filed(
    town: Town, monkeypatch: pytest.MonkeyPatch, clicks: tuple[float, float], step: str, verdict: str
) -> None:
    town.try_out()
    town.visits(ENOUGH, clicks=clicks)

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Promotion, step, stopped)
        assert town("canary", "decide").code == 130
    assert town.alias.generation == 2 and newest_result(town.promotion.store.get("v2")) is not None
    town.client.delete(keys.exposure_log(RANKING), *town.shards)
    said = town("canary", "decide")
    assert said.result["verdict"] == verdict and town.alias.canary is None
    assert town.alias.version == ("v2" if verdict == "promoted" else "v1")


@pytest.mark.parametrize(
    ("words", "state", "verdict"), [((), State.VALIDATED, "ended"), (("--refused",), State.ROLLED_BACK, "rolled_back")]
)
def test_a_canary_is_ended_by_hand_and_what_was_seen_is_filed(
    town: Town, words: tuple[str, ...], state: State, verdict: str
) -> None:
    town.try_out()
    town.visits(300, clicks=EQUAL)
    said = town("canary", "end", "--version", "v2", "--reason", "changed my mind", "--actor", "ada", *words)
    assert (said.result["moved"], said.result["verdict"], said.result["canary"]) == (True, verdict, None)
    assert (town.alias.version, town.state("v2")) == ("v1", state)
    filed = newest_result(town.promotion.store.get("v2"))
    assert filed is not None and filed.because == "Ended by ada: changed my mind" and "of 300 users" in filed.summary


def test_an_end_wants_a_reason(town: Town) -> None:
    town.try_out()
    assert "The reason is empty" in town("canary", "end", "--reason", " ").error
    assert town.canary.version == "v2"


def test_a_log_that_no_longer_reaches_back_is_not_judged_by(town: Town) -> None:
    town.try_out()
    town.visits(ENOUGH, clicks=FALLEN)
    town.client.xtrim(keys.exposure_log(RANKING), maxlen=100, approximate=False)
    told = town("canary", "decide").result
    assert told["verdict"] == "waits"
    assert str(told["because"]).startswith("It can no longer be judged. The log of lists shown begins at 20")
    assert "Set HEADGATE_EXPOSURES_KEPT to more" in str(told["because"])
    assert town.alias.generation == 2 and newest_result(town.promotion.store.get("v2")) is None
    town.set(HEADGATE_CANARY_HOURS="0.0000001")
    said = town("canary", "decide")
    assert said.result["verdict"] == "expired" and "HEADGATE_EXPOSURES_KEPT" in str(said.result["because"])
    assert town.state("v2") is State.VALIDATED


def test_one_whose_log_was_trimmed_can_be_ended_by_hand(town: Town) -> None:
    town.try_out()
    town.visits(300, clicks=EQUAL)
    town.client.xtrim(keys.exposure_log(RANKING), maxlen=10, approximate=False)
    assert town("canary", "end", "--reason", "too much traffic").result["verdict"] == "ended"


def test_events_that_are_gone_are_not_judged_without(town: Town) -> None:
    town.try_out()
    town.visits(ENOUGH, clicks=FALLEN)
    town.log([], [("late", "click")], ago_s=-5)
    town.client.xtrim(keys.event_log(RANKING, shard_of("user", "late")), maxlen=1, approximate=False)
    told = str(town("canary", "decide").result["because"])
    assert "The log of events begins at 20" in told and "HEADGATE_LOG_KEPT_RECORDS" in told


def test_events_may_be_logged_in_another_redis_than_the_lists(town: Town) -> None:
    elsewhere = new_redis()
    try:
        town.set(HEADGATE_LOG_REDIS_URL=elsewhere.url)
        town.try_out()
        town.visits(ENOUGH, clicks=EQUAL, log_url=elsewhere.url)
        assert not town.client.exists(*town.shards)
        assert town("canary", "decide").result["verdict"] == "promoted"
    finally:
        elsewhere.stop()
        shutil.rmtree(elsewhere.folder)


def test_a_shadow_is_reported_and_never_goes_live(town: Town) -> None:
    canary = town.try_out(mode=CanaryMode.SHADOW, fraction=1.0)
    lists = [town.list_of(f"u{n}", arm=Arm.LIVE, version=VersionName("v1")) for n in range(30)]
    unseen = [town.list_of(f"u{n}", arm=Arm.SHADOW, version=canary.version) for n in range(24)]
    town.log([*lists, *unseen], [(f"u{n}", "click") for n in range(5)])
    said = town("canary", "decide")
    assert (said.result["verdict"], said.result["pairs"], said.result["missing"]) == ("waits", 24, pytest.approx(0.2))
    assert said.result["summary"] == "overlap@10 100 % of 24 lists: waits"
    assert said.result["clicked"] == {"clicks": 5, "in_shadow": 1.0, "live_rank": 2.0, "shadow_rank": 2.0}
    assert "mean place of the clicks in both" in said.stderr
    town.set(HEADGATE_CANARY_HOURS="0.0000001")
    assert town("canary", "decide").result["verdict"] == "expired"
    assert (town.alias.version, town.alias.canary, town.state("v2")) == ("v1", None, State.VALIDATED)


def test_a_canary_that_another_flip_ended_is_none(town: Town) -> None:
    town.try_out()
    assert town("canary", "decide", "--version", "v2").result["verdict"] == "waits"
    town.promotion.flip(town.promotion.store.get("v3"), actor="ada", reason="urgent", force=True)
    assert town("canary", "decide", "--version", "v2").result["verdict"] == "none"


# -- guard


def lived(town: Town, *, clicks: tuple[float, float], users: int = 1200) -> None:
    """v2 went live an hour ago; as many users before it as after, of whom those shares (before, after) clicked."""
    town.promotion.flip(town.promotion.store.get("v2"), actor="ada", reason="looks good")
    town.flipped_long_ago(hours=1)
    for side, (name, generation, ago_s) in enumerate((("v1", 1, 1.5 * HOUR_S), ("v2", 2, 0.5 * HOUR_S))):
        version, clickers = VersionName(name), range(int(users * clicks[side]))
        people = [f"{name}-{n}" for n in range(users)]
        lists = [
            town.list_of(user, arm=Arm.LIVE, version=version, ago_s=ago_s, generation=generation) for user in people
        ]
        town.log(lists, [(people[n], "click") for n in clickers], ago_s=ago_s - 1)


def test_nothing_that_went_live_lately_is_nothing_to_guard(town: Town) -> None:
    said = town("guard", "--json")
    assert (said.code, said.result, said.stderr) == (0, {"application": "ranking", "verdict": "none"}, "")


def test_what_is_as_before_is_left_alone(town: Town) -> None:
    lived(town, clicks=(0.5, 0.5))
    said = town("guard")
    assert (said.result["verdict"], said.result["users_before"], said.result["users_after"]) == ("quiet", 1200, 1200)
    assert "Nothing has surely fallen since v2 went live" in said.stderr
    assert town.alias.version == "v2"


def test_a_tank_after_going_live_is_rolled_back_once(town: Town) -> None:
    lived(town, clicks=(0.5, 0.1))
    said = town("guard")
    assert (said.code, said.result["verdict"], said.result["live"]) == (0, "rolled_back", "v1")
    assert (town.alias.version, town.alias.actor, town.state("v2")) == ("v1", "guard", State.ROLLED_BACK)
    assert town.alias.reason.startswith("Surely fallen since v2 went live")
    assert town("guard").result["verdict"] == "none" and town.alias.generation == 3


def test_where_people_decide_a_tank_fails_the_run(town: Town) -> None:
    lived(town, clicks=(0.5, 0.1))
    town.set(HEADGATE_GUARD_ACTION="alert")
    said = town("guard")
    assert said.error.startswith("error: SnapshotError: ranking: Surely fallen since v2 went live")
    assert json.loads(said.stdout)["verdict"] == "alert" and town.alias.version == "v2"


def test_after_its_hours_nothing_is_guarded(town: Town) -> None:
    lived(town, clicks=(0.5, 0.1))
    town.set(HEADGATE_GUARD_HOURS="0.5")
    assert town("guard").result["verdict"] == "none"


# -- whoever else acts in the same moment


def test_one_that_passed_and_was_overtaken_is_not_called_promoted(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.try_out()
    town.visits(ENOUGH, clicks=EQUAL)
    flip = Promotion.flip

    def overtaken(promotion: Promotion, *args: Any, **named: Any) -> Alias:
        with monkeypatch.context() as patch:
            patch.setattr(Promotion, "flip", flip)
            town.promotion.end_canary(VersionName("v2"), actor="ada", reason="enough", refused=False)
        return flip(promotion, *args, **named)

    monkeypatch.setattr(Promotion, "flip", overtaken)
    said = town("canary", "decide")
    assert (said.result["verdict"], town.alias.version) == ("ended", "v1")
    assert "It had passed, and the alias was moved by somebody else first." in str(said.result["because"])
    filed = newest_result(town.promotion.store.get("v2"))
    assert filed is not None and filed.verdict is Verdict.ENDED
    assert town.promotion.store.get("v2").storage.exists(filed.page)


def test_one_that_another_decider_ended_first_ends_well(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.try_out()
    town.visits(ENOUGH, clicks=FALLEN)
    end = Promotion.end_canary

    def second(promotion: Promotion, *args: Any, **named: Any) -> Alias:
        end(promotion, *args, **named)
        return end(promotion, *args, **named)

    monkeypatch.setattr(Promotion, "end_canary", second)
    assert town("canary", "decide").result["verdict"] == "rolled_back"
    assert town.state("v2") is State.ROLLED_BACK


def test_it_is_ended_by_hand_whatever_the_logs_hold(town: Town) -> None:
    town.try_out()
    town.visits(10, clicks=EQUAL)
    town.client.xadd(keys.exposure_log(RANKING), {"a": "b"})
    said = town("canary", "end", "--reason", "now", "--actor", "ada")
    assert (said.result["verdict"], town.alias.canary, town.state("v2")) == ("ended", None, State.VALIDATED)
    assert "how it did is not filed: ContractViolation" in said.stderr


def test_what_is_live_already_is_not_tried_and_a_dag_may_ask_for_it(town: Town) -> None:
    words = ("canary", "start", "--version", "v1", "--fraction", "0.5", "--force")
    assert "v1 is LIVE and cannot become CANARY" in town(*words).error
    said = town(*words, "--unless-live")
    assert said.result == {"application": "ranking", "live": "v1", "canary": None}


def test_latency_of_either_side_is_told(town: Town) -> None:
    town.try_out()
    town.visits(300, clicks=EQUAL)
    said = town("canary", "status", "--json").result
    live, beside = said["latency_live"], said["latency_canary"]
    assert isinstance(live, dict) and isinstance(beside, dict)
    assert 0 < float(live["p50_ms"]) <= float(live["p99_ms"]) and float(beside["p50_ms"]) > 0
    assert "p99 latency, live and canary" in town("canary", "status").stderr
