"""What Airflow finds: one page in the navigation; its parts name no other host, its app is imported only where it answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from fastapi.testclient import TestClient

from dags.plugins.snapshots import routes
from dags.plugins.snapshots.access import PROMOTE, ROLLBACK
from dags.snapshot_promote import dag as promote_dag
from dags.snapshot_rollback import dag as rollback_dag
from infra.config.settings import CHECKOUT

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
    assert set(re.findall(r'dag: "(\w+)"', (FOLDER / "actions.js").read_text())) == {PROMOTE, ROLLBACK}
    for dag in (promote_dag, rollback_dag):
        reason = dag.params.get_param("reason").schema
        wanted = f'required minlength="{reason["minLength"]}" maxlength="{reason["maxLength"]}"'
        assert wanted in (FOLDER / "index.html").read_text()
    assert {promote_dag.dag_id, rollback_dag.dag_id} == {PROMOTE, ROLLBACK}
