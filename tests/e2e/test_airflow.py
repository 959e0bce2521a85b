"""The whole platform by Airflow's REST API and HTTP: each DAG runs once on a real stack, and the service answers accordingly."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from infra.config.settings import settings
from infra.contracts.errors import InvalidRequest, MissingTool
from infra.local.tools import find_chromium
from tests.e2e.conftest import FRESHNESS, PROMOTE, REFRESH, ROLLBACK, Build, Builds, Platform, log_in
from tests.fixtures.proof import sized

_PAGE_MS = 60_000

pytestmark = pytest.mark.timeout(sized(1200, full=3600))


def test_before_the_first_snapshot_nothing_is_ready_and_freshness_is_red(platform: Platform) -> None:
    assert httpx.get(f"{platform.service_url}/readyz").status_code == 503
    run_id, state = platform.run(FRESHNESS, {})
    assert state == "failed"
    assert platform.said(FRESHNESS, run_id).startswith("error: SnapshotNotFound: ranking has no live snapshot.")


@pytest.mark.parametrize(
    ("dag_id", "fields"),
    [
        (REFRESH, {"embedding_dim": 3}),
        (REFRESH, {"format": "xlsx"}),
        (REFRESH, {"candidates_per_user": "many"}),
        (ROLLBACK, {}),
        (ROLLBACK, {"reason": "bad"}),
        (ROLLBACK, {"reason": "too many duplicates", "version": "v1; reboot"}),
        (ROLLBACK, {"reason": "too many duplicates", "application": "cats"}),
        (PROMOTE, {"reason": "wanted after all"}),
    ],
    ids=str,
)
def test_the_server_refuses_a_bad_field_before_anything_runs(
    platform: Platform, dag_id: str, fields: Mapping[str, object]
) -> None:
    with pytest.raises(InvalidRequest, match="Airflow refused POST"):
        platform.airflow.trigger(dag_id, conf=fields)
    assert platform.airflow.running(dag_id) == []


def test_a_source_that_is_not_there_fails_with_the_mend_in_the_log(platform: Platform) -> None:
    run_id, state = platform.run(REFRESH, {"source": "/nowhere/events.csv"})
    assert state == "failed"
    failure = platform.airflow.failure(REFRESH, run_id)
    assert failure is not None and failure.task_id == "import"
    assert "/nowhere/events.csv" in failure.error and failure.error.startswith("error: DataRefused:")
    empty, state = platform.run(REFRESH, {})
    assert state == "failed"
    log = platform.airflow.log(REFRESH, empty, "import", try_number=1)
    assert any("No source of events" in line and "set it before `make up`" in line for line in log)


def test_each_refresh_goes_live_and_the_service_answers_from_it(
    platform: Platform, two_builds: tuple[Build, Build]
) -> None:
    first, second = (platform.airflow.result(REFRESH, build.run_id, "flip") for build in two_builds)
    assert (first["generation"], second["generation"]) == (1, 2)
    assert str(second["after"]).count("airflow:admin") == 1, "the records name who clicked"
    assert platform.live() == (two_builds[1].version, 2)
    assert platform.served() == f"predictions_{two_builds[1].version}"
    assert httpx.get(f"{platform.service_url}/readyz").status_code == 200


def test_a_rejected_snapshot_stays_validated_and_goes_live_once_somebody_approves(
    platform: Platform, builds: Builds
) -> None:
    rejection, version = builds.rejection, builds.first.version
    assert rejection.question["subject"] == f"May ranking {version} go live?"
    for told in ("The gate: **passed**", "Nothing is live yet.", "| users |", f"/versions/{version}/report)"):
        assert told in str(rejection.question["body"]), told
    assert rejection.run_state == "success" and rejection.history["flips"] == []
    last = rejection.history["records"][-1]
    assert (last["version"], last["state"], last["actor"]) == (version, "VALIDATED", "airflow:admin")
    assert str(last["reason"]).startswith("not let go live: too early in the day (snapshot_refresh_ranking ")
    after = platform.airflow.result(REFRESH, builds.first.run_id, "flip")["after"]
    assert isinstance(after, dict)
    assert (after["version"], after["actor"]) == (version, "airflow:admin")
    assert str(after["reason"]).endswith(", started by admin, approved: now it may")


def test_freshness_is_green_once_a_snapshot_is_live(platform: Platform, two_builds: tuple[Build, Build]) -> None:
    run_id, state = platform.run(FRESHNESS, {})
    assert two_builds and state == "success"
    assert platform.airflow.result(FRESHNESS, run_id, "ranking")["fresh"] is True


def test_a_failing_refresh_leaves_what_is_live_alone(platform: Platform, two_builds: tuple[Build, Build]) -> None:
    bad = platform.home / "bad.csv"
    bad.write_text("user,item,time\n" + "u1,i1,yesterday\n" * 50)
    run_id, state = platform.run(REFRESH, {"source": str(bad)})
    assert two_builds and state == "failed"
    assert "DataRefused" in platform.said(REFRESH, run_id)
    assert platform.live() == (two_builds[1].version, 2)


def test_a_rollback_is_served_within_seconds_and_no_earlier_build_can_undo_it(
    platform: Platform, two_builds: tuple[Build, Build]
) -> None:
    first, second = two_builds
    reason = "too many duplicates; 'quoted' $(text)"
    run_id = platform.airflow.trigger(ROLLBACK, conf={"reason": reason})
    seconds = platform.seconds_until_served(f"predictions_{first.version}")
    assert platform.ended(ROLLBACK, run_id) == "success"
    assert seconds < 30, "from the click to an answer"
    after = platform.airflow.result(ROLLBACK, run_id, "rollback")["after"]
    assert isinstance(after, dict)
    assert (after["version"], after["actor"], after["reason"]) == (first.version, "airflow:admin", reason)

    # The second build flips again. It began before the rollback.
    platform.clear(REFRESH, second.run_id, "flip")
    assert platform.ended(REFRESH, second.run_id) == "failed"
    assert "FlipFenced" in platform.said(REFRESH, second.run_id)
    assert platform.live() == (first.version, 3)

    forward = {"version": f"predictions_{second.version}", "reason": "it was the client"}
    assert platform.run(ROLLBACK, forward)[1] == "success"
    platform.seconds_until_served(f"predictions_{second.version}")


def test_nobody_promotes_past_failed_checks_whom_the_operator_has_not_named(
    platform: Platform, two_builds: tuple[Build, Build]
) -> None:
    live = platform.live()
    fields = {
        "version": two_builds[0].version,
        "reason": "the sale begins at nine; agreed with bea",
        "break_glass": True,
    }
    run_id, state = platform.run(PROMOTE, fields)
    assert state == "failed"
    assert "error: NotPermitted: airflow:admin may not promote" in platform.said(PROMOTE, run_id)
    assert platform.live() == live


def test_the_forms_and_their_help_are_on_airflows_pages(platform: Platform) -> None:
    try:
        chromium = find_chromium()
    except MissingTool as error:
        if settings().require_all:
            raise
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(_PAGE_MS)
        log_in(page, platform)
        page.goto(f"{platform.airflow.url}/dags/{ROLLBACK}")
        page.get_by_label("Dag Docs").click()
        page.get_by_text("It is safe while a refresh is running").wait_for()
        page.get_by_label("Close").first.click()
        page.get_by_label("Trigger Dag").first.click()
        form = page.get_by_role("dialog")
        for text in ("Feed ranking (ranking)", "Empty: the version before the live one.", "This field is required"):
            form.get_by_text(text).wait_for()
        submit = form.get_by_role("button", name="Trigger")
        expect(submit).to_be_disabled(timeout=_PAGE_MS)
        form.locator("#element_reason").fill("too many duplicates")
        expect(submit).to_be_enabled(timeout=_PAGE_MS)
        page.goto(f"{platform.airflow.url}/dags/{REFRESH}")
        page.get_by_label("Trigger Dag").first.click()
        page.get_by_text("Source of the events").wait_for()
        page.get_by_text("the setting, now spectral").wait_for()
        browser.close()
