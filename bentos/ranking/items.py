"""items: what somebody says of one item between two batches, and what is known of it now: PUT and GET /items/{item_id}."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from bentos.ranking.changes import ATTRIBUTES, UNAVAILABLE, Card
from bentos.ranking.content import RankingSnapshot
from bentos.ranking.feedback import now_utc
from bentos.web.exchange import BadRequest, Exchange, Reply, json_reply
from bentos.web.front import Route
from infra.catalog.events.spec import EventSchema
from infra.contracts.errors import DependencyUnavailable, InvalidRequest
from infra.contracts.ids import alias_value, check_id
from infra.eventlog.protocol import EventLog
from infra.nearline.boards import BoardReader, Standing

WAIT_S = 1.0
"""How long a PUT waits for the worker, at most."""

_Text = Annotated[
    str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$")
]
"""Something to read, without control characters."""

_Genre = Annotated[
    str, Field(min_length=1, max_length=256, pattern=r"^[^|\x00-\x1f\x7f]*[^|\s\x00-\x1f\x7f][^|\x00-\x1f\x7f]*$")
]


class ItemChange(BaseModel):
    """What is to be said of the item; what is left out stays as it is. Texts have at most 256 bytes, all genres together too."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [{"available": False}, {"title": "A new title"}]}
    )

    available: bool | None = Field(None, description="false: no list shows it, until it is said to be available again")
    title: _Text | None = Field(None, description="with one, an item that the snapshot has not is shown as new")
    creator: _Text | None = None
    genres: Annotated[list[_Genre], Field(min_length=1, max_length=32)] | None = None

    def fields(self) -> dict[str, object]:
        """As an item_changed says it. Raises InvalidRequest where nothing is said."""
        said: dict[str, object] = {name: value for name, value in self if value is not None}
        if not said:
            raise InvalidRequest(
                f"The body says nothing of the item; wanted one or more of {', '.join(ItemChange.model_fields)}."
            )
        if self.available is not None:
            said["available"] = int(self.available)
        if self.genres is not None:
            said["genres"] = "|".join(self.genres)
        return said


class ItemReply(BaseModel):
    """What is known of an item now."""

    item_id: str
    snapshot: str = Field(description="the one that is live")
    known_by: str = Field(description="snapshot; stream: newer than it; nobody: no list can show it yet")
    available: bool
    title: str | None
    creator: str | None
    genres: list[str]
    changed: list[str] = Field(description="what was said since the batch, and stands until something else is said")


class ItemChangeReply(BaseModel):
    """in_effect: every list that this process makes from now on goes by it; other processes follow within about a second. False:
    the log has it, and the worker is behind. position: `shard:offset` in the log; item: see GET."""

    request_id: str
    in_effect: bool
    position: str
    item: ItemReply


class Items:
    """Takes what is said of items into the event log, and waits for it to count."""

    def __init__(
        self, log: EventLog, schema: EventSchema, boards: BoardReader, pin: Callable[[], RankingSnapshot]
    ) -> None:
        """pin: the live snapshot; raises SnapshotNotFound."""
        self._events = log
        self._schema = schema
        self._boards = boards
        self._pin = pin

    async def put(self, item_id: str, change: ItemChange, *, now: datetime) -> tuple[bool, str]:
        """Whether it is in effect here already, and its position in the log.

        Raises InvalidRequest, SnapshotNotFound, and DependencyUnavailable where the log may not have it: then send it again.
        """
        said = change.fields()
        events = [said | {"event_type": "item_changed"}]
        if change.title is not None and not self._is_known(item_id):
            about = {name: value for name, value in said.items() if name in ATTRIBUTES}
            events.append(about | {"event_type": "item_added"})
        parsed = [self._schema.parse(event | {"item_id": item_id}, now=now) for event in events]
        appended = await self._events.append([record for event in parsed for record in event.records()])
        last = appended[-1]
        try:
            in_effect = await self._boards.reach(last.shard, last.offset, within_s=WAIT_S)
        except DependencyUnavailable:  # the log has it all the same
            in_effect = False
        return in_effect, f"{last.shard}:{last.offset}"

    def get(self, item_id: str) -> ItemReply:
        """Raises InvalidRequest, SnapshotNotFound, BadRequest 404 where nobody ever said anything of it."""
        check_id(item_id, what="item_id")
        known = self.look(item_id)
        if known.known_by == "nobody" and not known.changed:
            raise BadRequest(
                f"Nothing is known of an item {item_id[:80]!r}.", status=404, mend="Say it: PUT /items/{item_id}."
            )
        return known

    def look(self, item_id: str) -> ItemReply:
        """The same; also of an item of which nothing is known."""
        snapshot = self._pin()
        items, board = snapshot.content.items, snapshot.content.shelf.current()
        at, row = items.index_of.get(item_id), board.rows.get(item_id)
        standing = board.source.standing
        if at is not None:
            row = board.face(at)
        if row is not None:
            title, creator, genres = items.titles[row], items.creators[row], items.genres[row]
        else:
            card = Card(item_id, "", "", "").changed(standing)
            title, creator, genres = card.title, card.creator, [name for name in card.genres.split("|") if name]
        return ItemReply(
            item_id=item_id,
            snapshot=alias_value(snapshot.alias.version),
            known_by="snapshot" if at is not None else "stream" if row is not None else "nobody",
            available=item_id not in standing.get(UNAVAILABLE, {}),
            title=title or None,
            creator=creator or None,
            genres=genres,
            changed=_changed(item_id, standing),
        )

    def _is_known(self, item_id: str) -> bool:
        content = self._pin().content
        return item_id in content.items.index_of or item_id in content.shelf.current().rows


def _changed(item_id: str, standing: Standing) -> list[str]:
    names = [name for name in ATTRIBUTES if item_id in standing.get(f"changed_{name}", {})]
    return [*(["available"] if item_id in standing.get(UNAVAILABLE, {}) else []), *names]


def item_routes(items: Items) -> Sequence[Route]:
    """Both, for the front."""

    async def put_item(exchange: Exchange) -> Reply:
        item_id = check_id(exchange.variables["item_id"], what="item_id")
        change = await exchange.json(ItemChange)
        in_effect, position = await items.put(item_id, change, now=now_utc())
        reply = ItemChangeReply(
            request_id=exchange.request_id, in_effect=in_effect, position=position, item=items.look(item_id)
        )
        return json_reply(reply.model_dump(), status=200 if in_effect else 202)

    async def get_item(exchange: Exchange) -> Reply:
        return json_reply(items.get(exchange.variables["item_id"]).model_dump())

    return [
        Route(
            "PUT",
            "/items/{item_id}",
            put_item,
            "Say what an item is now: available or not, its title, creator, genres",
            "200: in effect in this process, in the others within about a second. 202: the log has it, and it will be. Stands "
            "until something else is said, whatever snapshot is live. With a title, an unknown item is shown as new.",
            takes=ItemChange,
            gives=ItemChangeReply,
            statuses=(200, 202),
            errors=(400, 408, 413, 415, 422, 503),
        ),
        Route(
            "GET",
            "/items/{item_id}",
            get_item,
            "What is known of an item",
            gives=ItemReply,
            errors=(400, 404, 422, 503),
        ),
    ]
