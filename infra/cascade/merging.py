"""merging: what each kind of stage makes of a batch, checked against what its kind promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from infra.cascade.batch import Batch, Column, Removed
from infra.cascade.kinds import Filter, Found, Hydrator, Q, Removal, Selector, SideEffect, Source, Stage
from infra.cascade.scoring import Scored
from infra.contracts.errors import ContractViolation

Made = Found | Mapping[str, Column] | list[Removal] | Scored | NDArray[np.integer] | None
"""What a source, hydrator, filter, scorer, selector or side effect gives."""


async def made_by(stage: Stage[Q], query: Q, batch: Batch) -> Made:
    """Run a stage that is no scorer and no side effect."""
    if isinstance(stage, Source):
        return await stage.find(query, batch)
    if isinstance(stage, Hydrator):
        return await stage.hydrate(query, batch)
    if isinstance(stage, Filter):
        return await stage.remove(query, batch)
    if isinstance(stage, Selector):
        return await stage.select(query, batch)
    raise ContractViolation(f"{stage.name} is a {type(stage).__name__}, which is none of the six kinds.")


def merged(
    stage: Stage[Q], made: Made, batch: Batch, source_names: Sequence[str], removed: list[Removed]
) -> tuple[Batch, list[Removed]]:
    """The batch after the stage, and what it removed. Raises ContractViolation."""
    if isinstance(stage, SideEffect):
        return batch, removed
    if isinstance(made, Scored):
        return replace(batch, scores=made.scores), removed
    if isinstance(stage, Source):
        return _added(stage, cast(Found, made), batch, source_names.index(stage.name)), removed
    if isinstance(stage, Hydrator):
        columns = cast("Mapping[str, Column]", made)
        for name, column in columns.items():
            _check_rows(stage, f"column {name}", len(column), len(batch))
        return replace(batch, columns={**batch.columns, **columns}), removed
    if isinstance(stage, Filter):
        return _without(stage, cast("list[Removal]", made), batch, removed)
    rows = cast("NDArray[np.integer]", made)
    if rows.dtype.kind not in "iu":
        raise ContractViolation(f"{stage.name} selected by {rows.dtype}; wanted positions, as integers.")
    if len(rows) and (_repeats(rows) or rows.min() < 0 or rows.max() >= len(batch)):
        raise ContractViolation(f"{stage.name} selected rows twice or outside of the {len(batch)} candidates.")
    return batch.take(rows), removed


def _added(stage: Source[Any], found: Found, batch: Batch, number: int) -> Batch:
    ids, columns = found.ids, dict(found.columns or {})
    if ids.dtype != np.int32 or found.scores.dtype != np.float32 or ids.ndim != 1 or found.scores.ndim != 1:
        raise ContractViolation(
            f"{stage.name} gave ids {ids.dtype} {ids.shape} and scores {found.scores.dtype} {found.scores.shape}; "
            "wanted int32 [n] and float32 [n]."
        )
    _check_rows(stage, "scores", len(found.scores), len(ids))
    if _repeats(ids):
        raise ContractViolation(f"{stage.name} brought a candidate twice.")
    if not np.isfinite(found.scores).all():
        raise ArithmeticError(f"{int((~np.isfinite(found.scores)).sum())} of {len(ids)} scores are not finite")
    for name, column in columns.items():
        _check_rows(stage, f"column {name}", len(column), len(ids))
    added = Batch(ids, found.scores, np.full(len(ids), number, np.uint8), columns)
    if not len(batch):
        return added
    if not len(added):
        return batch
    added = added.take(~np.isin(ids, batch.ids))
    shared = batch.columns.keys() & columns.keys()
    joined = {name: np.concatenate([batch.columns[name], added.columns[name]]) for name in shared}
    return Batch(
        np.concatenate([batch.ids, added.ids]),
        np.concatenate([batch.scores, added.scores]),
        np.concatenate([batch.sources, added.sources]),
        cast("dict[str, Column]", joined),
    )


def _without(
    stage: Filter[Any], removals: list[Removal], batch: Batch, removed: list[Removed]
) -> tuple[Batch, list[Removed]]:
    gone, told = np.zeros(len(batch), np.bool_), list(removed)
    for removal in removals:
        if removal.rows.dtype != np.bool_:
            raise ContractViolation(f"{stage.name} gave rows {removal.rows.dtype}; wanted bool, one a candidate.")
        _check_rows(stage, "rows", len(removal.rows), len(batch))
        fresh = removal.rows & ~gone
        if fresh.any():
            told.append(Removed(batch.ids[fresh], by=stage.name, because=removal.because))
            gone |= fresh
    return (batch.take(~gone), told) if gone.any() else (batch, removed)


def _repeats(numbers: NDArray[np.integer]) -> bool:
    """Whether one is there twice; sorting takes 5 us for a thousand."""
    ordered = np.sort(numbers)
    return bool((ordered[1:] == ordered[:-1]).any())


def _check_rows(stage: Stage[Any], what: str, seen: int, wanted: int) -> None:
    if seen != wanted:
        raise ContractViolation(f"{stage.name} gave {what} with {seen} rows for {wanted} candidates.")
