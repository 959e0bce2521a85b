"""samples: a few users as a person would look at them: what they took lately, what they would be offered, by title."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from validation.case import Case
from validation.checks.ranker_model import ranker_scores
from validation.report.shown import shown
from validation.scan import PAGE, KeptList

USERS = 4
HISTORY = 6


@dataclass(frozen=True, slots=True)
class Offer:
    """One place of a list. ranked: the place that the ranker gives it; in_lists: the share of users who have the item."""

    item_id: str
    title: str
    score: str
    ranked: str
    in_lists: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One user: the latest items taken, the first PAGE offered, out of how many."""

    user_id: str
    n_candidates: int
    history: list[str]
    offers: list[Offer]


def samples(case: Case) -> list[Sample]:
    """From the user with the shortest history to the one with the longest, out of those who were looked at closely."""
    kept = sorted(case.scan.kept.items(), key=lambda pair: (len(pair[1].history), pair[0]))
    if not kept:
        return []
    places = np.unique(np.linspace(0, len(kept) - 1, USERS).round().astype(np.int64))
    return [_sample(case, kept[place][1]) for place in places]


def _sample(case: Case, kept: KeptList) -> Sample:
    scores = kept.bits.view(np.float16).astype(np.float32)
    n_lists = max(case.scan.n_lists, 1)
    ranked = _places(case, kept)
    offers = [
        Offer(
            item_id=_name(case.item_ids, item),
            title=_name(case.titles, item),
            score=f"{scores[place]:.3f}" if place < len(scores) else "none",
            ranked=f"{ranked[place] + 1:,}" if ranked is not None else "none",
            in_lists=_share(case, item, n_lists),
        )
        for place, item in enumerate(kept.items[:PAGE].tolist())
    ]
    history = [_name(case.titles, item) for item in kept.history[:HISTORY].tolist()]
    return Sample(shown(kept.user_id), len(kept.items), history, offers)


def _places(case: Case, kept: KeptList) -> NDArray[np.int64] | None:
    """int64 [n]: the place of each item in the ranker's order, from 0; None where the ranker cannot say."""
    scores = ranker_scores(case, kept)
    if scores is None:
        return None
    places = np.empty(len(scores), np.int64)
    places[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return places


def _name(names: NDArray[np.object_], item: int) -> str:
    return shown(names[item]) if 0 <= item < len(names) else f"item index {item}, not in the catalogue"


def _share(case: Case, item: int, n_lists: int) -> str:
    return f"{case.scan.exposure[item] / n_lists:.0%}" if 0 <= item < len(case.scan.exposure) else "none"
