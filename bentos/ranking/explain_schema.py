"""explain_schema: what POST /explain takes and gives, as it stands in the OpenAPI."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bentos.ranking.schema import RecommendRequest

MOST_ITEMS = 50
"""Items explained a call."""

_MOST_CHARACTERS = 100
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Verdict = Literal["shown", "cut", "removed", "not_proposed", "not_in_catalogue"]


class ExplainRequest(BaseModel):
    """Which answer, by its id, or a request that is answered now and logged nowhere."""

    model_config = _STRICT | ConfigDict(
        json_schema_extra={"examples": [{"request": {"user_id": "1", "n": 20}, "items": ["17"]}]}
    )

    request_id: str | None = Field(
        None, min_length=1, max_length=_MOST_CHARACTERS, description="of an answer that was given"
    )
    request: RecommendRequest | None = Field(None, description="as /recommend takes it")
    items: Annotated[list[str], Field(max_length=MOST_ITEMS)] = Field(
        [], description="also tell of these why they are, or are not, in the list"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.request_id is None) == (self.request is None):
            raise ValueError("wanted either request_id or request")
        return self


class FeatureShare(BaseModel):
    """One feature of one item. value: null where it is unknown."""

    feature: str
    value: float | None
    contribution: float = Field(description="what it added to the trees' score: SHAP")


class TreesExplained(BaseModel):
    """The trees' score of one item: `bias` and all contributions together."""

    score: float
    bias: float = Field(description="what the trees give on average, the same for every item")
    features: list[FeatureShare] = Field(description="largest contribution first, whatever its sign")


class ItemExplained(BaseModel):
    """How one item came to its place, or why it has none."""

    item_id: str
    verdict: Verdict = Field(
        description="cut: a candidate that was not chosen; removed: by a filter; not_proposed: no source brought it"
    )
    place: int | None = Field(description="in the list, from 1; null where it is not shown")
    because: str = Field(description="in words")
    by: str = Field(description="the stage that decided it: source, filter or selector; empty where none did")
    source: str = Field(description="what brought it; empty where nothing did")
    title: str
    places: dict[str, int] = Field(
        description="its place among all candidates after `sources` and after each scoring stage"
    )
    scores: dict[str, float] = Field(description="its score there")
    passed: list[str] = Field(description="filters that looked at it and let it pass")
    trees: TreesExplained | None = Field(description="null where the trees did not score it")


class StageExplained(BaseModel):
    """One stage that applied. candidates: after it."""

    stage: str
    kind: Literal["source", "hydrator", "filter", "scorer", "selector"]
    candidates: int
    skipped: str = Field(description="why it did not run, did not count or did not finish; empty where it did")


class ExplainReply(BaseModel):
    """How a list came about."""

    request_id: str = Field(description="of the answer that is explained; of this call where a request was sent")
    user_id: str
    snapshot: str
    generation: int
    arm: str
    decided_by: str
    settled_by: str
    degraded: bool
    exact: bool | None = Field(
        description="whether the answer came out again to the bit: list, scores and all features that were logged; null where a "
        "request was sent, for there is no earlier answer"
    )
    made_from: Literal["request", "live state", "archive"] = Field(
        description="live state: of what was never near the list something may have changed since"
    )
    differences: list[str] = Field(description="where it is not exact: what came out otherwise")
    note: str = Field(description="where it is not exact: what to do about it")
    stages: list[StageExplained]
    items: list[ItemExplained] = Field(description=f"the list's first, {MOST_ITEMS} with those asked for")
    asked: list[ItemExplained] = Field(description="the items that were asked for")
