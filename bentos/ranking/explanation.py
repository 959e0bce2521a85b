"""explanation: what a witnessed run says of its items: who brought them, who moved them, who took them out, and by what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bentos.ranking.contributions import contributions
from bentos.ranking.query import RankingQuery, known_items
from bentos.ranking.recommender import Reasons
from bentos.ranking.stages import FEATURES
from bentos.ranking.trees import SLICE, RankerScorer
from bentos.ranking.witness import Run, Sight
from infra.cascade.batch import EMPTY, Batch
from infra.cascade.kinds import Filter, Hydrator, Scorer, Selector, Source, Stage
from infra.catalog.features.ranking import RANKER_FEATURES

SOURCES = "sources"
"""Under this name stand places and scores before any scoring stage."""

_KINDS: tuple[tuple[type, str], ...] = (
    (Source, "source"), (Hydrator, "hydrator"), (Filter, "filter"), (Scorer, "scorer"), (Selector, "selector"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Standing:
    """All candidates at one moment. place_of: item index -> place by score, from 1; ties as they stand in the batch."""

    name: str
    place_of: Mapping[int, int]
    score_of: Mapping[int, float]


class Explanation:
    """Of one run. Everything is worked out from what the witness saw, nothing is run again."""

    def __init__(self, run: Run, *, hindrances: Mapping[int, tuple[str, str]]) -> None:
        """hindrances: of items that no source brought: which filter would have taken them out, and why."""
        self._run = run
        self._hindrances = hindrances
        self._table = run.query.snapshot.content.items
        self._reasons = Reasons(run.query)
        shown = run.outcome.batch
        self._place = {index: place for place, index in enumerate(shown.ids.tolist(), 1)}
        self._removed = {
            index: (removed.by, removed.because) for removed in run.outcome.removed for index in removed.ids.tolist()
        }

    def stages(self) -> list[dict[str, object]]:
        """StageExplained of every stage that applied."""
        outcome = self._run.outcome
        return [
            {
                "stage": stage.name,
                "kind": _kind(stage),
                "candidates": len(sight.after),
                "skipped": outcome.skipped.get(stage.name, ""),
            }
            for sight, stage in _stages(self._run.sights)
            if stage.name in outcome.stage_ms or stage.name in outcome.skipped
        ]

    def of(self, item_ids: Sequence[str]) -> list[dict[str, object]]:
        """ItemExplained of those items, in their order."""
        query = self._run.query
        known = {name: found[0] for name in item_ids if (found := known_items(query.snapshot, [name], query.board))}
        trees = self._trees(list(known.values()))
        return [
            self._item(name, known[name], trees.get(known[name])) if name in known else _unknown(name)
            for name in item_ids
        ]

    def _item(self, item_id: str, index: int, trees: dict[str, object] | None) -> dict[str, object]:
        source = self._source(index)
        verdict, by, because = self._verdict(index, source)
        standings = [standing for standing in self._standings if index in standing.place_of]
        return {
            "item_id": item_id,
            "verdict": verdict,
            "place": self._place.get(index),
            "because": because,
            "by": by,
            "source": source,
            "title": self._table.titles[self._run.query.board.face(index)],
            "places": {standing.name: standing.place_of[index] for standing in standings},
            "scores": {standing.name: standing.score_of[index] for standing in standings},
            "passed": self._passed(index),
            "trees": trees,
        }

    def _verdict(self, index: int, source: str) -> tuple[str, str, str]:
        """The verdict, the stage that decided it, and why, in words."""
        if index in self._place:
            return "shown", source, self._reasons.of(index, source=source)
        if index in self._removed:
            by, because = self._removed[index]
            return "removed", by, because
        if not source:
            by, because = self._hindrances.get(index, ("", ""))
            text = "no source brought it"
            return "not_proposed", by, f"{text}; the filter {by} would have removed it: {because}" if by else text
        return "cut", *self._cut(index)

    def _cut(self, index: int) -> tuple[str, str]:
        """The selector that did not choose it: for its place, or in spite of it."""
        for sight in self._run.sights:
            selector = sight.steps[0].stage
            if not isinstance(selector, Selector) or not _holds(sight.before, index) or _holds(sight.after, index):
                continue
            place = _standing("", sight.before).place_of[index]
            chosen = len(sight.after)
            if place <= chosen:
                return (
                    selector.name,
                    f"its place was {place} of {len(sight.before)}, and {selector.name} passed over it",
                )
            return selector.name, f"its place was {place} of {len(sight.before)}, and {chosen} are shown"
        return "", "it is not in the list"

    def _source(self, index: int) -> str:
        for sight in self._run.sights:
            rows = np.flatnonzero(sight.after.ids == index)
            if len(rows):
                return self._run.source_names[int(sight.after.sources[rows[0]])]
        return ""

    def _passed(self, index: int) -> list[str]:
        ran = self._run.outcome.stage_ms
        return [
            stage.name
            for sight, stage in _stages(self._run.sights)
            if isinstance(stage, Filter)
            and stage.name in ran
            and _holds(sight.before, index)
            and _holds(sight.after, index)
        ]

    @cached_property
    def _standings(self) -> list[Standing]:
        """Before any scorer, then after each that worked."""
        found: list[Standing] = []
        for sight in self._run.sights:
            stage = sight.steps[0].stage
            if isinstance(stage, Scorer) and self._worked(stage):
                found = found or [_standing(SOURCES, sight.before)]
                found.append(_standing(stage.name, sight.after))
        return found or [_standing(SOURCES, self._last_candidates())]

    def _last_candidates(self) -> Batch:
        """What the first selector saw."""
        chosen = (sight.before for sight in self._run.sights if isinstance(sight.steps[0].stage, Selector))
        return next(chosen, EMPTY)

    def _worked(self, stage: Stage[RankingQuery]) -> bool:
        outcome = self._run.outcome
        ran = stage.name in outcome.stage_ms
        return ran and (stage.name not in outcome.skipped or stage.name in outcome.extents)

    def _trees(self, indices: Sequence[int]) -> dict[int, dict[str, object]]:
        """TreesExplained of those among the items that the trees scored, by item index."""
        sight = next((one for one in self._run.sights if isinstance(one.steps[0].stage, RankerScorer)), None)
        if sight is None or not self._worked(sight.steps[0].stage) or FEATURES not in sight.before.columns:
            return {}
        before, ranker = sight.before, self._run.query.snapshot.content.ranker
        rows = _rows_scored(sight, self._run)
        chosen = rows[np.isin(before.ids[rows], np.array(indices, np.int32))]
        features = before.columns[FEATURES][chosen].astype(np.float32, copy=False)
        extent = self._run.outcome.extents.get(sight.steps[0].stage.name)
        trees = ranker.num_boosted_rounds()
        if extent is not None and extent.parts is not None:
            trees = min(trees, extent.parts * SLICE)
        shares = contributions(ranker, features, trees=trees)
        score_of = dict(zip(sight.after.ids.tolist(), sight.after.scores.tolist(), strict=True))
        return {
            index: _told(values, parts, score=score_of[index])
            for index, values, parts in zip(before.ids[chosen].tolist(), features, shares, strict=True)
        }


def _rows_scored(sight: Sight, run: Run) -> np.ndarray:
    """Positions in the batch before, best first: those that the runner gave the scorer."""
    step = sight.steps[0]
    extent = run.outcome.extents.get(step.stage.name)
    most = len(sight.before) if step.head is None else step.head.most
    rows = most if extent is None else extent.rows
    return np.argsort(-sight.before.scores, kind="stable")[:rows]


def _told(values: np.ndarray, parts: np.ndarray, *, score: float) -> dict[str, object]:
    order = np.argsort(-np.abs(parts[:-1]), kind="stable").tolist()
    return {
        "score": score,
        "bias": float(parts[-1]),
        "features": [
            {
                "feature": RANKER_FEATURES[at],
                "value": float(values[at]) if np.isfinite(values[at]) else None,
                "contribution": float(parts[at]),
            }
            for at in order
        ],
    }


def _standing(name: str, batch: Batch) -> Standing:
    order = np.argsort(-batch.scores, kind="stable")
    places = {index: place for place, index in enumerate(batch.ids[order].tolist(), 1)}
    return Standing(name, places, dict(zip(batch.ids.tolist(), batch.scores.tolist(), strict=True)))


def _stages(sights: Sequence[Sight]) -> Iterator[tuple[Sight, Stage[RankingQuery]]]:
    for sight in sights:
        for step in sight.steps:
            yield sight, step.stage


def _holds(batch: Batch, index: int) -> bool:
    return bool(np.any(batch.ids == index))


def _kind(stage: Stage[RankingQuery]) -> str:
    return next(name for kind, name in _KINDS if isinstance(stage, kind))


def _unknown(item_id: str) -> dict[str, object]:
    return {
        "item_id": item_id,
        "verdict": "not_in_catalogue",
        "place": None,
        "because": "neither the snapshot nor the stream has an item of this id",
        "by": "",
        "source": "",
        "title": "",
        "places": {},
        "scores": {},
        "passed": [],
        "trees": None,
    }
