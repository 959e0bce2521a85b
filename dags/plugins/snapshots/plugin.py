"""plugin: what Airflow is told of the Snapshots page: where it is mounted and where its link stands."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import quote

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/snapshots"

_ICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="{fill}" stroke="{stroke}" stroke-width="2"
 stroke-linecap="round" stroke-linejoin="round"><path d="M2 17l10 5 10-5"/><path d="M2 12l10 5 10-5"/>
<path d="M12 2 2 7l10 5 10-5-10-5z"/></svg>"""


def _icon(*, stroke: str, fill: str) -> str:
    """As a data URL: an icon of its own address would be refused to whom the page is, and look broken."""
    return f"data:image/svg+xml,{quote(_ICON.format(stroke=stroke, fill=fill))}"


class SnapshotsPlugin(AirflowPlugin):
    """The page in the navigation, and the app behind it."""

    name = "headgate_snapshots"
    external_views = [
        {
            "name": "Snapshots",
            "href": f"{PREFIX[1:]}/",  # relative: Airflow may live below a path of its own
            "url_route": "snapshots",
            "destination": "nav",
            "nav_top_level": True,
            "icon": _icon(stroke="#3f587a", fill="#ffffff"),
            "icon_dark_mode": _icon(stroke="#aab7c6", fill="none"),
        }
    ]

    @cached_property
    def fastapi_apps(self) -> list[Any]:  # type: ignore[override]
        """Imported only where it is asked for, which is the API server: every task's process reads this file too."""
        from dags.plugins.snapshots.routes import app

        return [{"app": app, "url_prefix": PREFIX, "name": "Snapshots"}]
