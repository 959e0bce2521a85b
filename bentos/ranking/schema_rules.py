"""schema_rules: the business rules that one request may bring, as they stand in the OpenAPI."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from infra.contracts.ids import MAX_ID_BYTES

MAX_N = 1000
"""Items of a list."""

LEAST_FACTOR, MOST_FACTOR = 0.1, 10.0

ItemIds = Annotated[list[Annotated[str, Field(max_length=MAX_ID_BYTES)]], Field(max_length=5000)]

_Name = Annotated[str, Field(min_length=1, max_length=MAX_ID_BYTES)]
_Names = Annotated[list[_Name], Field(max_length=200)]
_Factor = Annotated[float, Field(ge=LEAST_FACTOR, le=MOST_FACTOR)]
_Factors = Annotated[dict[_Name, _Factor], Field(max_length=200)]
_Place = Annotated[int, Field(ge=1, le=MAX_N)]


class BusinessRules(BaseModel):
    """What this list must and must not show. What denies wins over what pins, and that over what boosts; the rest is ranked."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    allow_categories: _Names = Field([], description="only items of at least one of these genres; none: of all")
    deny_categories: _Names = Field([], description="no item of any of these genres")
    deny_creators: _Names = Field([], description="no item by any of these")
    boost_categories: _Factors = Field(
        {}, description="genre to factor: its items stand at their place divided by it; 2 brings place 20 to place 10"
    )
    boost_items: _Factors = Field({}, description="item to factor, likewise; where several apply they are multiplied")
    pin: dict[_Name, _Place] = Field(
        {}, max_length=50, description="item to place, from 1 to n, each once; not shown where consumed or denied"
    )
