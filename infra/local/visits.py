"""visits: simulated users come to the running service, see the lists that it ranks for them, and click and buy."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from infra.contracts.errors import DatasetNotFound, InvalidRequest
from infra.local.ask import ServiceClient
from infra.local.world.visitors import Visitors

_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """How many come. users: of the world, drawn at random, who come in turns, each as often as any other; 0: all of them.

    items: the length of the lists they ask for.
    """

    seconds: float
    per_second: float
    users: int = 0
    items: int = 20

    def __post_init__(self) -> None:
        """Raise InvalidRequest where nobody would come."""
        if not (self.seconds > 0 and self.per_second > 0):
            raise InvalidRequest(
                f"{self.per_second:g} visits a second for {self.seconds:g} seconds; wanted both above 0.",
                mend="Use: --seconds 60 --per-second 20",
            )
        if self.users < 0 or self.items < 1:
            raise InvalidRequest(
                f"{self.users} users and lists of {self.items}; wanted 0 users (all) or more, and 1 item or more."
            )

    @property
    def visits(self) -> int:
        """All of them, at least one."""
        return max(1, round(self.seconds * self.per_second))


@dataclass(slots=True)
class Seen:
    """What became of the lists of one snapshot."""

    lists: int = 0
    clicks: int = 0
    purchases: int = 0

    def fields(self) -> dict[str, object]:
        """For the summary; click_through: share of the lists of which an item was clicked, None without lists."""
        through = round(self.clicks / self.lists, 4) if self.lists else None
        return {"lists": self.lists, "clicks": self.clicks, "purchases": self.purchases, "click_through": through}


@dataclass(slots=True)
class Tally:
    """What became of all visits. recommend_ms: from when a visitor was due to his list."""

    seen: dict[str, Seen] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    recommend_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def fields(self) -> dict[str, object]:
        """The summary as JSON: of all snapshots, then of each."""
        parts = self.seen.values()
        total = Seen(*(sum(getattr(part, name) for part in parts) for name in ("lists", "clicks", "purchases")))
        p50, p99 = np.percentile(self.recommend_ms, (50, 99)).round(1).tolist() if self.recommend_ms else (None, None)
        return {
            **total.fields(),
            "snapshots": {name: part.fields() for name, part in sorted(self.seen.items())},
            "errors": dict(self.errors),
            "p50_ms": p50,
            "p99_ms": p99,
            "seconds": round(self.seconds, 1),
        }


def open_visitors(folder: Path, rng: np.random.Generator) -> Visitors:
    """The users of the world that was generated there. Raises DatasetNotFound where none was."""
    if not (folder / "world.json").exists():
        raise DatasetNotFound(
            f"{folder} holds no generated world, and only its users are known well enough to be simulated.",
            mend="Run: make demo (without DATA), or name another world: make visit ARGS='--world path'",
        )
    return Visitors.open(folder, rng)


def send_visits(
    url: str, visitors: Visitors, traffic: Traffic, rng: np.random.Generator, *, advance: Callable[[int], None]
) -> Tally:
    """All the visits; returns when the last one has ended. advance(1) is called after each.

    Open loop: a visitor comes when he is due, however many wait for an answer. Raises DependencyUnavailable where the service
    has no snapshot, InvalidRequest where it knows other users than the world; a request that fails later is counted.
    """
    user_ids = visitors.user_ids
    with ServiceClient(url) as service:
        known = service.known_user()
    if known and known not in set(user_ids):
        raise InvalidRequest(
            f"{url} serves a snapshot that knows {known!r}, who is not of this world: it was built of other events.",
            mend="Run: make snapshot (without DATA), or name its world: make visit ARGS='--world path'",
        )
    if traffic.users:
        drawn = rng.choice(len(user_ids), min(traffic.users, len(user_ids)), replace=False)
        user_ids = tuple(user_ids[number] for number in drawn.tolist())
    return asyncio.run(_Run(visitors, traffic, in_turns(user_ids, rng), advance).all_of_it(url))


def in_turns(user_ids: Sequence[str], rng: np.random.Generator) -> Iterator[str]:
    """Everybody once in random order, then everybody again in another one, without end."""
    while True:
        for number in rng.permutation(len(user_ids)).tolist():
            yield user_ids[number]


class _Run:
    """The visits of one call."""

    def __init__(
        self, visitors: Visitors, traffic: Traffic, users: Iterator[str], advance: Callable[[int], None]
    ) -> None:
        self._visitors, self._traffic, self._users, self._advance = visitors, traffic, users, advance
        self._name = uuid.uuid4().hex
        self._tally = Tally()

    async def all_of_it(self, url: str) -> Tally:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        began_s = time.monotonic()
        async with (
            httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=False, limits=limits) as http,
            asyncio.TaskGroup() as group,
        ):
            for number in range(self._traffic.visits):
                due_s = began_s + number / self._traffic.per_second
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                group.create_task(self._visit(http, next(self._users), number=number, due_s=due_s))
        self._tally.seconds = time.monotonic() - began_s
        return self._tally

    async def _visit(self, http: httpx.AsyncClient, user_id: str, *, number: int, due_s: float) -> None:
        asked = "recommend"
        try:
            answer = await http.post("/recommend", json={"user_id": user_id, "n": self._traffic.items})
            reply = answer.raise_for_status().json()
            self._tally.recommend_ms.append(1000 * (time.monotonic() - due_s))
            events = self._events(user_id, [item["item_id"] for item in reply["items"]], number=number)
            asked = "events"
            if events:
                (await http.post("/events", json={"events": events})).raise_for_status()
            self._count(reply["snapshot"], events)
        except httpx.HTTPStatusError as error:
            self._tally.errors[f"{asked}: {error.response.status_code}"] += 1
        except (httpx.HTTPError, InvalidRequest, ValueError) as error:
            self._tally.errors[f"{asked}: {type(error).__name__}"] += 1
        finally:
            self._advance(1)

    def _events(self, user_id: str, shown: Sequence[str], *, number: int) -> list[dict[str, object]]:
        """The click and the purchase, as the service takes them; an id of its own each, so that sending twice counts once."""
        visitors = self._visitors
        did = visitors.respond([user_id], [shown], visitors.ends)
        if not did.clicked[0]:
            return []
        item_id = shown[int(did.places[0])]
        event = {"user_id": user_id, "item_id": item_id}
        click: dict[str, object] = {**event, "event_type": "click", "event_id": f"{self._name}-{number}-click"}
        if not did.bought[0]:
            return [click]
        bought = {"event_type": "purchase", "event_id": f"{self._name}-{number}-purchase"}
        return [click, {**event, **bought, "value": visitors.price(item_id)}]

    def _count(self, snapshot: str, events: Sequence[dict[str, object]]) -> None:
        seen = self._tally.seen.setdefault(snapshot, Seen())
        seen.lists += 1
        for event in events:
            seen.clicks += event["event_type"] == "click"
            seen.purchases += event["event_type"] == "purchase"
