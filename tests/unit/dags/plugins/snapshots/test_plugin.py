"""What Airflow finds: one page in the navigation; its parts name no other host, its app is imported only where it answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from dags.plugins.snapshots import routes
from dags.plugins.snapshots.access import CANARY, CANARY_END, PROMOTE, ROLLBACK
from dags.snapshot_canary import dag as canary_dag
from dags.snapshot_canary_end import dag as canary_end_dag
from dags.snapshot_promote import dag as promote_dag
from dags.snapshot_rollback import dag as rollback_dag
from infra.config.settings import CHECKOUT
from infra.contracts.canaries import Canary, CanaryMode
from infra.contracts.errors import InvalidRequest
from infra.contracts.ids import VersionName

FOLDER = Path(routes.__file__).parent / "page"

LOAD = """
    import json, sys
    from airflow import plugins_manager

    plugins_manager.ensure_plugins_loaded()
    early = [name for name in ("redis", "pyarrow", "dags.plugins.snapshots.routes") if name in sys.modules]
    plugins = plugins_manager.get_plugin_info(["external_views", "fastapi_apps"])
    own = next((plugin for plugin in plugins if plugin["name"] == "headgate_snapshots"), None)
    print(json.dumps({"own": own, "early": early, "errors": plugins_manager.get_import_errors()}))
"""


def test_airflow_finds_the_page_and_imports_its_app_only_where_it_is_mounted(tmp_path: Path) -> None:
    environment = os.environ | {"AIRFLOW_HOME": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(LOAD)]
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == {}
    own = found["own"]
    assert own, "its entry point is in pyproject.toml; was the project installed since? Run: make install"
    assert [(view["name"], view["href"]) for view in own["external_views"]] == [("Snapshots", "snapshots/")]
    assert [app["url_prefix"] for app in own["fastapi_apps"]] == ["/snapshots"]
    assert found["early"] == [], "every task's process reads the plugin"


def test_every_part_is_served_under_a_policy_that_allows_nothing_inline_or_foreign(reader: TestClient) -> None:
    parts = {path.name for path in FOLDER.iterdir()}
    for name in parts:
        answer = reader.get("/" if name == "index.html" else f"/{name}")
        assert (answer.status_code, answer.content) == (200, (FOLDER / name).read_bytes()), name
        assert "script-src 'self'; style-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert reader.get("/README.md").status_code == 404


def test_the_parts_name_no_other_host_and_set_no_markup() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text()
        assert set(re.findall(r"https?://[^\"'\s]+", text)) <= {"http://www.w3.org/2000/svg"}, path.name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|\bstyle=|\son\w+=\"", text
        ), path.name
        assert len(text.splitlines()) <= 400, path.name


def test_the_page_asks_for_the_dags_that_there_are_and_for_a_reason_as_their_forms_do() -> None:
    dags = {PROMOTE: promote_dag, ROLLBACK: rollback_dag, CANARY: canary_dag, CANARY_END: canary_end_dag}
    assert set(re.findall(r'dag: "(\w+)"', (FOLDER / "actions.js").read_text())) == set(dags)
    for dag_id, dag in dags.items():
        assert dag.dag_id == dag_id
        reason = dag.params.get_param("reason").schema
        wanted = f'required minlength="{reason["minLength"]}" maxlength="{reason["maxLength"]}"'
        assert wanted in (FOLDER / "index.html").read_text()


def test_the_page_follows_a_canary_to_a_task_that_there_is() -> None:
    assert re.findall(r'until: "(\w+)"', (FOLDER / "actions.js").read_text()) == ["start"]
    assert "start" in canary_dag.task_ids


def test_the_page_lets_a_canary_have_the_shares_and_modes_that_may_be() -> None:
    page, script = (FOLDER / "index.html").read_text(), (FOLDER / "confirm.js").read_text()
    schemas = {name: canary_dag.params.get_param(name).schema for name in ("fraction", "mode")}
    assert f'min="{100 * schemas["fraction"]["minimum"]:g}"' in page
    assert re.findall(r'<option value="(\w+)"', page) == schemas["mode"]["enum"]
    (most,) = re.findall(r"AT_MOST = \{ canary: (\d+), shadow: (\d+) \}", script)
    for mode, percent in zip(CanaryMode, most, strict=True):
        share = int(percent) / 100
        assert share <= schemas["fraction"]["maximum"]
        assert _canary(share, mode).fraction == share
        with pytest.raises(InvalidRequest):
            _canary(share + 0.01, mode)


def _canary(fraction: float, mode: CanaryMode) -> Canary:
    return Canary(VersionName("v3"), "d", fraction, "s", mode, datetime.now(UTC), "ada")
