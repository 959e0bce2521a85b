"""schema: what the feed's routes take and give, as they stand in the OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from bentos.ranking.schema_rules import MAX_N, BusinessRules, ItemIds
from infra.catalog.applications.ranking import RANKING
from infra.catalog.events.ranking import RANKING_EVENTS
from infra.contracts.ids import MAX_ID_BYTES

MAX_EVENTS = 500

MIN_DEADLINE_MS, MAX_DEADLINE_MS = 1, 60_000

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

DeadlineMs = Annotated[
    float | None,
    Field(
        ge=MIN_DEADLINE_MS,
        le=MAX_DEADLINE_MS,
        description=f"answer within; what is above the application's budget of {RANKING.request_budget_ms:g} ms counts as that",
    ),
]


class RecommendContext(BaseModel):
    """What the request knows and no batch or stream does. Other fields are allowed and ignored."""

    model_config = ConfigDict(extra="allow", strict=True)

    recent_items: ItemIds = Field([], description="items of this session, newest first; they are not shown again")
    hour: int | None = Field(
        None, ge=0, le=23, description="of the caller's day; where it is not said, of the day in UTC"
    )
    device: Literal["mobile", "desktop", "tv", "other"] | None = Field(None, description="what the list is shown on")


class ListOptions(BaseModel):
    """What all requests for a list may say."""

    model_config = STRICT

    n: int = Field(20, ge=1, le=MAX_N, description="items wanted; the list is shorter only where the catalogue is")
    exclude: ItemIds = Field([], description="items not to show")
    rules: BusinessRules = Field(default_factory=BusinessRules)
    details: bool = Field(False, description="also title, genres, creator and the reason of each item")


class UserRequest(ListOptions):
    """Who asks, and amid what."""

    user_id: str = Field(
        description=f"1 to {MAX_ID_BYTES} bytes of UTF-8", json_schema_extra={"minLength": 1, "maxLength": MAX_ID_BYTES}
    )
    context: RecommendContext = Field(default_factory=RecommendContext)


class RecommendRequest(UserRequest):
    """A request for a ranked list."""

    model_config = STRICT | ConfigDict(
        json_schema_extra={"examples": [{"user_id": "1", "n": 20, "context": {"recent_items": []}, "exclude": []}]}
    )

    deadline_ms: DeadlineMs = None


class RecommendedItem(BaseModel):
    """One item. Scores are comparable within one answer only."""

    item_id: str
    score: float
    source: str = Field(description="retrieval, fresh, trending, popular, new, pinned or backfill")
    title: str | None = None
    genres: list[str] | None = None
    creator: str | None = None
    reason: str | None = None


class RecommendReply(BaseModel):
    """A ranked list and how it came about."""

    request_id: str
    snapshot: str = Field(description="the one snapshot behind every item, e.g. predictions_v12")
    items: list[RecommendedItem]
    decided_by: str = Field(
        description="the last stage that scored (light, ranker, network, or boost by rules), else the source whose order was kept"
    )
    degraded: bool = Field(description="true where a stage failed or ran out of time and its fallback was used")
    stage_ms: dict[str, float]
    skipped: dict[str, str] = Field(
        {}, description="stages that failed, did less or were left out, and why; absent where none was"
    )
    not_pinned: dict[str, str] = Field({}, description="pinned items that are not shown, and why; absent where all are")


def _event_form() -> dict[str, Any]:
    """One event as JSON Schema: all fields of all types; which type takes which is told field by field."""
    takes: dict[str, list[str]] = {}
    forms: dict[str, dict[str, object]] = {}
    for name, event_type in RANKING_EVENTS.types.items():
        for kind in (*event_type.entities, *event_type.optional):
            takes.setdefault(f"{kind}_id", []).append(name)
            forms[f"{kind}_id"] = {"type": "string", "maxLength": MAX_ID_BYTES}
        for field_name, spec in event_type.fields.items():
            takes.setdefault(field_name, []).append(name)
            forms[field_name] = {"type": {"text": "string", "int": "integer", "float": "number"}[spec.dtype]}
    properties: dict[str, object] = {
        "event_type": {"type": "string", "enum": sorted(RANKING_EVENTS.types)},
        "event_time": {"type": "string", "format": "date-time", "description": "with a zone; default: now"},
        "event_id": {"type": "string", "description": "sent again with the same id, an event counts once"},
    }
    for name, form in forms.items():
        properties[name] = {**form, "description": f"of {', '.join(takes[name])}"}
    return {"type": "object", "required": ["event_type"], "properties": properties}


class EventsRequest(RootModel[dict[str, Any]]):
    """One event, or several under `events`. Each is judged by itself: the good ones are taken, the others refused with a reason."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                _event_form(),
                {
                    "type": "object",
                    "required": ["events"],
                    "properties": {"events": {"type": "array", "maxItems": MAX_EVENTS, "items": _event_form()}},
                },
            ],
            "examples": [{"user_id": "1", "item_id": "2", "event_type": "click"}],
        }
    )


class RefusedEvent(BaseModel):
    """An event that was not taken. index: its place among those sent, from 0."""

    index: int
    reason: str


class EventsReply(BaseModel):
    """Given only after the log took every event that was not refused."""

    request_id: str
    accepted: int
    duplicates: int = Field(description="of those accepted, events whose event_id was known; they count once")
    refused: list[RefusedEvent] = Field(
        description="events that were not taken, and why; they are kept as dead letters"
    )
    positions: list[str] = Field(description="`shard:offset` in the log of each accepted event, in the order sent")


class UserSummary(BaseModel):
    """A user to try."""

    user_id: str
    history_length: int
    known: bool


class UsersReply(BaseModel):
    """Some users of the live snapshot, long histories first, and one that no snapshot knows."""

    users: list[UserSummary]


class HistoryItem(BaseModel):
    """An item the user consumed; seen_by tells whether the batch or only the stream knows it."""

    item_id: str
    title: str
    genres: list[str]
    seen_by: str


class UserReply(BaseModel):
    """What is known of a user."""

    user_id: str
    snapshot: str
    known: bool
    candidates: int
    features: dict[str, float | None]
    nearline: dict[str, int | list[str]] = Field(description="what the stream knows, as of this moment")
    counted: bool = Field(description="false: the worker is behind, and the newest events are seen by the filter alone")
    history: list[HistoryItem]


class LiveSnapshotStatus(BaseModel):
    """The snapshot that is served."""

    snapshot: str
    generation: int
    digest: str
    dataset: str
    created_at: str
    age_s: float
    flipped_at: str
    flipped_by: str
    reason: str
    loaded_at: str
    load_s: float
    counts: dict[str, int]
    ranker: dict[str, dict[str, float]]
    embedder: str


class CanaryStatus(BaseModel):
    """What runs beside the live snapshot, for a share of the users, always the same ones."""

    snapshot: str
    digest: str
    mode: str = Field(description="canary: shown to a share of the users; shadow: scored unseen")
    fraction: float = Field(description="of the users")
    started_at: str
    started_by: str
    loaded_at: str | None = Field(
        description="null while it is not loaded; its users get the live snapshot's lists then"
    )
    problem: str = Field(description="why it is not served; empty where all is well")


class StatusReply(BaseModel):
    """The service at a glance. Counters are this worker's, since it started."""

    application: str
    ready: bool
    problem: str = Field(description="empty where all is well")
    mend: str = Field(description="what to do where nothing can be served")
    live: LiveSnapshotStatus | None
    canary: CanaryStatus | None = Field(description="null where none runs")
    boards_age_s: float | None = Field(description="how old what is trending and new is; null before it was read")
    counters: dict[str, int]
    uptime_s: float
    worker_pid: int


class ReadyReply(BaseModel):
    """Ready: a snapshot is live and loaded. `note` tells what is wrong although it is."""

    ready: bool
    snapshot: str
    note: str
