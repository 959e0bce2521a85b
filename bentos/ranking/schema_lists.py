"""schema_lists: what the other routes of lists take and give: many users at once, a session of nobody known, similar, popular."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from bentos.ranking.schema import (
    MAX_DEADLINE_MS,
    MIN_DEADLINE_MS,
    STRICT,
    DeadlineMs,
    HistoryItem,
    ListOptions,
    RecommendContext,
    RecommendReply,
)
from bentos.ranking.schema_rules import ItemIds
from bentos.web.openapi import ErrorReply

MAX_REQUESTS = 1000
MAX_ITEMS = 50_000
MANY_BUDGET_MS = 10_000


class SharedOptions(ListOptions):
    """What holds for every entry that does not say otherwise."""

    context: RecommendContext = Field(default_factory=RecommendContext)


class ManyRequest(BaseModel):
    """Lists for many users in one call. Each entry is judged by itself."""

    model_config = STRICT | ConfigDict(
        json_schema_extra={
            "examples": [{"requests": [{"user_id": "1"}, {"user_id": "2", "n": 5}], "shared": {"n": 10}}]
        }
    )

    requests: list[Any] = Field(
        min_length=1,
        max_length=MAX_REQUESTS,
        description=f"each as POST /recommend takes it, but for deadline_ms; at most {MAX_ITEMS:,} items in all",
        json_schema_extra={"items": {"type": "object", "properties": {"user_id": {"type": "string"}}}},
    )
    shared: SharedOptions = Field(default_factory=SharedOptions)
    deadline_ms: float | None = Field(
        None,
        ge=MIN_DEADLINE_MS,
        le=MAX_DEADLINE_MS,
        description=f"all of it within, {MANY_BUDGET_MS:,} where it is not said; an entry whose turn has not come by then gets an "
        "error, DeadlineExceeded",
    )


class ManyReply(BaseModel):
    """results: one an entry, in order: its list, or its error in the form of all errors. failed: how many are errors."""

    request_id: str
    results: list[RecommendReply | ErrorReply]
    failed: int


class SessionRequest(ListOptions):
    """A list for somebody of whom nothing is known but what was looked at just now."""

    model_config = STRICT | ConfigDict(json_schema_extra={"examples": [{"recent_items": ["1", "2"], "n": 20}]})

    recent_items: ItemIds = Field(min_length=1, description="newest first; they are not shown again")
    deadline_ms: DeadlineMs = None


class ListedItem(BaseModel):
    """An item and what it is listed by."""

    item_id: str
    score: float
    title: str
    genres: list[str]
    creator: str | None


class SimilarReply(BaseModel):
    """Items by the cosine of their vectors with that item's, highest first; none where it has no vector yet."""

    snapshot: str
    item_id: str
    items: list[ListedItem]


class PopularReply(BaseModel):
    """What many took before the snapshot, most first."""

    snapshot: str
    items: list[ListedItem]


class HistoryReply(BaseModel):
    """The newest of what a user consumed, as the ranking sees it."""

    user_id: str
    snapshot: str
    known: bool
    history: list[HistoryItem]
