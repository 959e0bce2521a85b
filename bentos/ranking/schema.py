"""schema: what the feed's routes take and give, as they stand in the OpenAPI."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

MAX_N = 1000
MAX_EVENTS = 500

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_Ids = Annotated[list[str], Field(max_length=5000)]


class RecommendContext(BaseModel):
    """What the request knows and no batch or stream does. Other fields are allowed and ignored."""

    model_config = ConfigDict(extra="allow", strict=True)

    recent_items: _Ids = Field([], description="items of this session, newest first; they are not shown again")


class RecommendRequest(BaseModel):
    """A request for a ranked list."""

    model_config = _STRICT | ConfigDict(
        json_schema_extra={"examples": [{"user_id": "1", "n": 20, "context": {"recent_items": []}, "exclude": []}]}
    )

    user_id: str
    n: int = Field(20, ge=1, le=MAX_N, description="items wanted; the list is shorter only where the catalogue is")
    context: RecommendContext = Field(default_factory=RecommendContext)
    exclude: _Ids = Field([], description="items not to show")
    details: bool = Field(False, description="also title, genres, creator and the reason of each item")
    deadline_ms: float | None = Field(None, gt=0, description="answer within; capped at the application's budget")


class RecommendedItem(BaseModel):
    """One item. Scores are comparable within one answer only."""

    item_id: str
    score: float
    source: str = Field(description="retrieval, popular or backfill")
    title: str | None = None
    genres: list[str] | None = None
    creator: str | None = None
    reason: str | None = None


class RecommendReply(BaseModel):
    """A ranked list and how it came about."""

    request_id: str
    snapshot: str = Field(description="the one snapshot behind every item, e.g. predictions_v12")
    items: list[RecommendedItem]
    decided_by: str = Field(description="ranker, or the source whose order was kept")
    degraded: bool = Field(description="true where a stage failed or ran out of time and its fallback was used")
    stage_ms: dict[str, float]
    skipped: dict[str, str] = Field({}, description="stages that failed, and why; absent where none did")


class EventFields(BaseModel):
    """One interaction. Give an event_id to be able to send it again without counting twice."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    user_id: Annotated[str, Field(strict=True)]
    item_id: Annotated[str, Field(strict=True)]
    event_type: Annotated[str, Field(strict=True, description="view, click, purchase, rating or one of your own")]
    event_time: AwareDatetime | None = Field(None, description="when it happened, with a zone; default: now")
    event_id: Annotated[str, Field(strict=True)] | None = None
    value: Annotated[float, Field(strict=True)] | None = Field(None, description="e.g. the rating")


class EventsRequest(BaseModel):
    """One event, or several under `events`; all are taken or none."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"user_id": "1", "item_id": "2", "event_type": "click"}]},
    )

    user_id: Annotated[str, Field(strict=True)] | None = None
    item_id: Annotated[str, Field(strict=True)] | None = None
    event_type: Annotated[str, Field(strict=True)] | None = None
    event_time: AwareDatetime | None = None
    event_id: Annotated[str, Field(strict=True)] | None = None
    value: Annotated[float, Field(strict=True)] | None = None
    events: list[EventFields] | None = Field(None, min_length=1, max_length=MAX_EVENTS)


class EventsReply(BaseModel):
    """Given only after the log took every event."""

    request_id: str
    accepted: int
    duplicates: int = Field(description="events whose event_id was known; they count once")
    positions: list[str] = Field(description="where each event stands in the log, in the order sent")


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
    counters: dict[str, int]
    uptime_s: float
    worker_pid: int


class ReadyReply(BaseModel):
    """Ready: a snapshot is live and loaded. `note` tells what is wrong although it is."""

    ready: bool
    snapshot: str
    note: str
