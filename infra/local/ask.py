"""ask: questions to the running ranking service, and its answers as tables."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast
from urllib.parse import quote

import httpx
from rich.box import SIMPLE
from rich.table import Table

from infra.contracts.errors import DependencyUnavailable
from infra.contracts.ids import VersionName, alias_value

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said to one request."""

    user_id: str
    snapshot: str
    items: list[dict[str, object]]
    decided_by: str
    degraded: bool
    stage_ms: dict[str, float]

    def table(self, *, rows: int = 10) -> Table:
        """The first items: what, why a candidate, and the score."""
        table = Table(
            title=f"for {_printable(self.user_id)}, from {self.snapshot}",
            title_justify="left",
            box=SIMPLE,
            pad_edge=False,
        )
        table.add_column("#", justify="right")
        table.add_column("title", max_width=36, no_wrap=True, overflow="ellipsis")
        table.add_column("genre", max_width=12, no_wrap=True, overflow="ellipsis")
        table.add_column("source", min_width=9, no_wrap=True)
        table.add_column("score", min_width=7, justify="right", no_wrap=True)
        for number, item in enumerate(self.items[:rows], 1):
            genres = cast("list[str]", item.get("genres") or [])
            title = str(item.get("title") or item["item_id"])
            score = f"{float(str(item['score'])):.3f}"
            genre = genres[0] if genres else ""
            table.add_row(str(number), _printable(title), _printable(genre), str(item["source"]), score)
        return table

    def stages(self) -> str:
        """The milliseconds of each stage, in one line."""
        parts = [f"{stage} {spent:.2f}" for stage, spent in self.stage_ms.items()]
        how = "degraded" if self.degraded else f"decided by {self.decided_by}"
        return f"{how}; milliseconds: {', '.join(parts)}"


class ServiceClient:
    """One connection to the service. Use it as a context manager."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=10.0, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def recommend(self, user_id: str, *, n: int = 10) -> Answer:
        """A ranked list with titles. Raises DependencyUnavailable where there is none."""
        body = {"user_id": user_id, "n": n, "details": True}
        try:
            reply = self._http.post("/recommend", json=body).raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise DependencyUnavailable(
                f"{self.url}/recommend does not answer ({error}).", mend="Run: make status"
            ) from error
        return Answer(
            user_id, reply["snapshot"], reply["items"], reply["decided_by"], reply["degraded"], reply["stage_ms"]
        )

    def click(self, user_id: str, item_id: str) -> None:
        """The user clicks an item. Raises DependencyUnavailable where the log did not take it."""
        body = {"user_id": user_id, "item_id": item_id, "event_type": "click"}
        try:
            self._http.post("/events", json=body).raise_for_status()
        except httpx.HTTPError as error:
            raise DependencyUnavailable(
                f"{self.url}/events does not answer ({error}).", mend="Run: make status"
            ) from error

    def nearline(self, user_id: str) -> dict[str, int]:
        """What the stream knows of a user; of lists how long they are. Raises DependencyUnavailable."""
        try:
            said = self._http.get(f"/users/{quote(user_id, safe='')}").raise_for_status().json()["nearline"]
        except (httpx.HTTPError, ValueError) as error:
            raise DependencyUnavailable(
                f"{self.url}/users does not answer ({error}).", mend="Run: make status"
            ) from error
        return {name: value if isinstance(value, int) else len(value) for name, value in said.items()}

    def known_user(self) -> str:
        """One of the live snapshot's users, with a history neither long nor short."""
        try:
            users = self._http.get("/users", params={"limit": "9"}).raise_for_status().json()["users"]
        except (httpx.HTTPError, ValueError) as error:
            raise DependencyUnavailable(
                f"{self.url}/users does not answer ({error}).", mend="Run: make status"
            ) from error
        known = [str(user["user_id"]) for user in users if user["known"]]
        return known[len(known) // 2] if known else ""

    def wait_for(self, version: VersionName, *, user_id: str, timeout_s: float) -> float:
        """Seconds until an answer comes from that version. Raises DependencyUnavailable after `timeout_s`."""
        began, seen = time.monotonic(), "no answer"
        while time.monotonic() - began < timeout_s:
            try:
                seen = self.recommend(user_id, n=1).snapshot
            except DependencyUnavailable as error:
                seen = str(error)
            if seen == alias_value(version):
                return time.monotonic() - began
            time.sleep(_POLL_S)
        raise DependencyUnavailable(
            f"The service does not answer from {version} after {timeout_s:.0f} s (seen: {seen}).",
            mend="Run: make status",
        )


def _printable(text: str) -> str:
    """Titles are other people's data: no control character reaches the terminal, no bracket becomes markup."""
    return "".join(character if character.isprintable() else "?" for character in text).replace("[", r"\[")
