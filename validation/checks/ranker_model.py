"""ranker_model: the ranker that the snapshot carries loads, takes the declared features and gives finite scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe
import numpy as np
import xgboost

from infra.catalog.features.ranking import ranker_matrix
from infra.contracts.candidates import Float32s
from infra.snapshots.tables import ITEM_TABLE, ItemTable, read_item_table
from validation.case import Case
from validation.check import MAX_EXAMPLES, Check, Figures, Requirement, Severity, Whole
from validation.scan import KeptList

USERS = 32
"""Lists scored for the trial; each is a whole request's work."""


@dataclass(frozen=True, slots=True)
class _Trial:
    problem: str
    not_finite: tuple[str, ...]
    constant: int
    lists: int


@dataclass(frozen=True, slots=True)
class _Ranker:
    """problem: why it cannot score; empty where it can."""

    booster: xgboost.Booster
    items: ItemTable
    problem: str


@dataclass(frozen=True, kw_only=True)
class RankerModel(Check):
    """A model that cannot score must not go live; one that gives all items of a list the same score is worth a look."""

    name = "ranker_model"
    title = "The ranker can score"

    def measure(self, case: Case) -> Figures:
        found = _trial(case)
        return {
            "ranker_model_unusable": float(bool(found.problem)),
            "ranker_model_not_finite": float(len(found.not_finite)),
            "ranker_model_constant": found.constant / max(found.lists, 1),
        }

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        found = _trial(case)
        n_features = len(case.manifest.ranker.feature_order)
        return (
            Whole(
                gxe.ExpectColumnValuesToBeBetween(column="ranker_model_unusable", max_value=0),
                self.severity,
                wanted=f"a booster of the manifest's {n_features} features and {case.manifest.ranker.trees} trees",
                seen=found.problem or f"{case.manifest.ranker.trees} trees over {n_features} features",
            ),
            finite_scores_of("ranker_model_not_finite", self.severity, found.not_finite, found.lists),
            Whole(
                gxe.ExpectColumnValuesToBeBetween(column="ranker_model_constant", max_value=0.5),
                Severity.WARN,
                wanted="scores that tell the items of a list apart",
                seen=f"one score for all items in {found.constant} of {found.lists} sampled lists"
                if found.constant
                else "items told apart",
            ),
        )


def finite_scores_of(column: str, severity: Severity, not_finite: Sequence[str], lists: int) -> Whole:
    """That a model gives finite scores to all lists of its trial. not_finite: the users of the others."""
    return Whole(
        gxe.ExpectColumnValuesToBeBetween(column=column, max_value=0),
        severity,
        wanted="finite scores",
        seen=f"{len(not_finite)} of {lists} sampled lists with scores that are not finite"
        if not_finite
        else f"finite scores in {lists} sampled lists",
        examples=tuple(not_finite[:MAX_EXAMPLES]),
    )


def _trial(case: Case) -> _Trial:
    return case.once("ranker_model", lambda: _try(case))


def _try(case: Case) -> _Trial:
    problem = _ranker(case).problem
    if problem:
        return _Trial(problem, (), 0, 0)
    not_finite, constant, n_lists = [], 0, 0
    for kept in list(case.scan.kept.values())[:USERS]:
        scores = ranker_scores(case, kept)
        if scores is None:
            continue
        n_lists += 1
        if not np.all(np.isfinite(scores)):
            not_finite.append(f"user {kept.user_id!r}")
        constant += int(len(scores) > 1 and np.ptp(scores) == 0)
    return _Trial("", tuple(not_finite), constant, n_lists)


def ranker_scores(case: Case, kept: KeptList) -> Float32s | None:
    """float32 [n], aligned with the list's items; None for a ranker or a list that is refused anyway."""
    matrix = ranker_rows(case, kept)
    return None if matrix is None else _ranker(case).booster.inplace_predict(matrix, validate_features=False)


def ranker_rows(case: Case, kept: KeptList) -> Float32s | None:
    """float32 [n, features], aligned with the list's items, of a request by somebody who did nothing since the batch; likewise."""
    ranker = _ranker(case)
    return None if ranker.problem else _matrix(kept, ranker.items)


def _ranker(case: Case) -> _Ranker:
    return case.once("ranker", lambda: _load(case))


def _load(case: Case) -> _Ranker:
    manifest, storage = case.manifest, case.version.storage
    items = read_item_table(storage, sorted(manifest.parts[ITEM_TABLE].files))
    (name,) = manifest.parts[manifest.ranker.part].files
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(storage.read(name)))
    except xgboost.core.XGBoostError as error:
        return _Ranker(booster, items, f"it does not load: {_first_line(error)}")
    booster.set_param(
        {"nthread": 1}
    )  # a list is too short for threads to help, and they wait on each other on a busy machine
    return _Ranker(booster, items, _misfit(booster, manifest.ranker.feature_order, trees=manifest.ranker.trees))


def _first_line(error: Exception) -> str:
    """XGBoost's messages begin with a time and end with a stack trace."""
    text = str(error).strip().splitlines()[0]
    return text.rpartition(": ")[2] if ".cc:" in text else text


def _misfit(booster: xgboost.Booster, wanted: tuple[str, ...], *, trees: int) -> str:
    if booster.num_features() != len(wanted):
        return f"it takes {booster.num_features()} features"
    names = booster.feature_names
    if names and tuple(names) != wanted:
        first = next(at for at, (seen, want) in enumerate(zip(names, wanted, strict=True)) if seen != want)
        return f"its feature {first} is {names[first]!r}, the manifest's {wanted[first]!r}"
    if booster.num_boosted_rounds() != trees:
        return f"it has {booster.num_boosted_rounds()} trees"
    return ""


def _matrix(kept: KeptList, items: ItemTable) -> Float32s | None:
    """The ranker's input for a whole list; None for a list that other checks refuse."""
    n, n_items = len(kept.items), len(items.item_ids)
    indices = np.concatenate([kept.items, kept.history])
    if n == 0 or len(kept.bits) != n or np.any((indices < 0) | (indices >= n_items)):
        return None
    scores = kept.bits.view(np.float16).astype(np.float32)
    if not np.all(np.isfinite(scores)):
        return None
    return ranker_matrix(
        kept.features,
        items.columns,
        item_indices=kept.items,
        scores=scores,
        ranks=np.arange(n),
        best_score=float(scores[0]),
        history=kept.history,
    )
