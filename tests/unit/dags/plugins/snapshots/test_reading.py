"""What the Snapshots page is told: every version with its state and action, every flip, and what is wrong; nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from infra.contracts.snapshots import State
from tests.unit.dags.plugins.snapshots.conftest import REPORT, Shop

OVERVIEW = "/applications/ranking"


def told(reader: TestClient, path: str = OVERVIEW) -> dict[str, Any]:
    answer = reader.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def rows(overview: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["version"]: row for row in overview["versions"]}


def test_before_the_first_build_there_is_nothing_and_no_complaint(reader: TestClient, shop: Shop) -> None:
    overview = told(reader)
    assert (overview["live"], overview["previous"], overview["versions"], overview["flips"]) == (None, None, [], [])
    assert overview["redis_problem"] == overview["standing_problem"] == ""


def test_each_state_has_its_action(reader: TestClient, shop: Shop) -> None:
    first, second, third = shop.live(), shop.live(), shop.live(reason="a bad build")
    shop.back(reason="duplicates <b>everywhere</b>")
    validated, rejected, staged = shop.judged(), shop.judged(State.REJECTED), shop.staged()
    seen = {name: (row["state"], row["live"], row["action"]) for name, row in rows(told(reader)).items()}
    assert seen == {
        staged.version: ("STAGED", False, None),
        rejected.version: ("REJECTED", False, None),
        validated.version: ("VALIDATED", False, "promote"),
        third.version: ("ROLLED_BACK", False, "promote"),
        second.version: ("LIVE", True, None),
        first.version: ("RETIRED", False, "rollback"),
    }


def test_a_row_has_sizes_counts_verdict_and_who_put_it_live_and_why(reader: TestClient, shop: Shop) -> None:
    version = shop.live(actor="airflow:ada", reason="<script>alert(1)</script> was right")
    manifest = version.manifest()
    row = rows(told(reader))[version.version]
    assert (row["users"], row["items"]) == (20, 60)
    assert row["store_bytes"] == sum(part.bytes for part in manifest.parts.values())
    assert row["redis_bytes"] > 0
    assert (row["verdict"]["word"], row["verdict"]["summary"]) == ("passed", "1 passed")
    assert (row["went_live"]["actor"], row["went_live"]["reason"]) == (
        "airflow:ada",
        "<script>alert(1)</script> was right",
    )
    unloaded = shop.judged()
    assert rows(told(reader))[unloaded.version]["redis_bytes"] is None


def test_the_flips_tell_who_moved_what_where_and_why(reader: TestClient, shop: Shop) -> None:
    first, second = shop.live(reason="the first"), shop.live(reason="the second")
    shop.back(reason="duplicates")
    overview = told(reader)
    flips = [
        (flip["generation"], flip["kind"], flip["before"], flip["version"], flip["actor"], flip["reason"])
        for flip in overview["flips"]
    ]
    assert flips == [
        (3, "rollback", second.version, first.version, "airflow:bea", "duplicates"),
        (2, "flip", first.version, second.version, "airflow:ada", "the second"),
        (1, "flip", None, first.version, "airflow:ada", "the first"),
    ]
    assert (overview["live"]["version"], overview["live"]["generation"], overview["previous"]) == (
        first.version, 3, None,
    )  # fmt: skip


def test_a_flip_that_was_voided_says_why(reader: TestClient, shop: Shop) -> None:
    shop.live()
    shop.promotion.store.journal.void(1, actor="recovery", reason="its files are gone")
    assert told(reader)["flips"][0]["void"] == "its files are gone"


def test_the_live_version_is_shown_however_old_it_is(reader: TestClient, shop: Shop) -> None:
    live = shop.live()
    newer = [shop.judged() for _ in range(3)]
    overview = told(reader, f"{OVERVIEW}?newest=1")
    assert list(rows(overview)) == [newer[-1].version, live.version]
    assert overview["older"] == 2


@pytest.mark.parametrize("newest", ["0", "501", "many"])
def test_a_number_of_versions_that_cannot_be_is_refused(reader: TestClient, shop: Shop, newest: str) -> None:
    assert reader.get(f"{OVERVIEW}?newest={newest}").status_code == 422


def test_with_redis_away_the_store_is_shown_and_nothing_can_be_moved(reader: TestClient, shop: Shop) -> None:
    first, second = shop.live(), shop.live()
    shop.server.kill()
    overview = told(reader)
    assert overview["redis_problem"] == f"Redis at 127.0.0.1:{shop.server.port} does not answer (ConnectionError)."
    assert (overview["live"]["version"], overview["previous"]) == (second.version, first.version), "by the journal"
    for row in overview["versions"]:
        assert (row["users"], row["redis_bytes"], row["action"]) == (20, None, None)


def test_a_redis_that_forgot_is_told_of_with_the_mend(reader: TestClient, shop: Shop) -> None:
    live = shop.live()
    with shop.server_client() as client:
        client.flushall()
    overview = told(reader)
    assert "Redis lost its memory" in overview["standing_problem"]
    assert "python -m infra.snapshots reload" in overview["standing_problem"]
    assert (overview["live"]["version"], rows(overview)[live.version]["redis_bytes"]) == (live.version, None)


def test_a_damaged_version_says_what_is_wrong_and_hides_no_other(reader: TestClient, shop: Shop) -> None:
    good, bad = shop.live(), shop.judged()
    path = Path(shop.root, "ranking", "snapshots", bad.version, "manifest.json")
    path.write_text(path.read_text().replace('"dim": 8', '"dim": 9'))
    found = rows(told(reader))
    assert "its content has" in found[bad.version]["problem"]
    assert (found[bad.version]["action"], found[bad.version]["users"]) == (None, None)
    assert found[good.version]["problem"] == ""


def test_the_newest_report_is_served_as_it_was_filed_and_can_run_nothing(reader: TestClient, shop: Shop) -> None:
    version = shop.judged(State.REJECTED)
    answer = reader.get(f"{OVERVIEW}/versions/{version.version}/report")
    assert (answer.content, answer.headers["content-type"]) == (REPORT, "text/html; charset=utf-8")
    policy = answer.headers["content-security-policy"].split("; ")
    assert "sandbox" in policy and "default-src 'none'" in policy and not any("script" in rule for rule in policy)
    assert "content-disposition" not in answer.headers
    kept = reader.get(f"{OVERVIEW}/versions/{version.version}/report?download=true")
    assert kept.headers["content-disposition"] == 'attachment; filename="ranking-v1-validation.html"'


@pytest.mark.parametrize(
    ("version", "status", "words"),
    [
        ("v1", 404, "ranking/v1 has no validation report. Run: make validate VERSION=v1"),
        ("v7", 404, "There is no snapshot ranking/v7"),
        ("..%2Fv1", 404, "Not Found"),
        ("newest", 400, "is not a snapshot version"),
    ],
)
def test_a_report_that_is_not_there_is_told_of(
    reader: TestClient, shop: Shop, version: str, status: int, words: str
) -> None:
    shop.staged()
    answer = reader.get(f"{OVERVIEW}/versions/{version}/report")
    assert answer.status_code == status and words in answer.json()["detail"]


def test_reading_changes_neither_the_store_nor_redis(reader: TestClient, shop: Shop) -> None:
    shop.live()
    version = shop.judged()

    def everything() -> tuple[list[tuple[str, int]], dict[bytes, bytes]]:
        files = sorted((str(path), path.stat().st_mtime_ns) for path in Path(shop.root).rglob("*") if path.is_file())
        with shop.server_client() as client:
            return files, {key: client.dump(key) for key in client.scan_iter()}

    before = everything()
    told(reader)
    told(reader, "/applications")
    assert reader.get(f"{OVERVIEW}/versions/{version.version}/report").status_code == 200
    assert everything() == before
