"""recommender: from a request to its answer: pin a snapshot, run the cascade, write down what came out and why."""

from __future__ import annotations

import numpy as np

from bentos.ranking.content import RankingContent, RankingSnapshot
from bentos.ranking.query import RankingQuery, known_items
from bentos.ranking.schema import RecommendRequest
from bentos.ranking.stages import BACKFILL, POPULAR
from infra.cascade.batch import Outcome
from infra.cascade.runner import Cascade
from infra.catalog.applications.spec import ApplicationSpec
from infra.contracts.errors import SnapshotNotFound
from infra.contracts.ids import alias_value, check_id
from infra.resilience.deadline import Deadline
from infra.snapshots.live import LiveSnapshots

_LIKE_FRACTION = 0.5
"""A cosine of genres from which on two items are said to be alike."""


class Recommender:
    """Answers requests for lists."""

    def __init__(
        self, live: LiveSnapshots[RankingContent], cascade: Cascade[RankingQuery], spec: ApplicationSpec
    ) -> None:
        self._live = live
        self._cascade = cascade
        self._spec = spec

    def pin(self) -> RankingSnapshot:
        """The snapshot that is live now, for the length of one request. Raises SnapshotNotFound."""
        pinned = self._live.current
        if pinned is None:
            raise SnapshotNotFound(
                f"{self._spec.name} has nothing to serve: {self._live.problem}.", mend=self._live.mend
            )
        return pinned

    async def recommend(self, request: RecommendRequest, *, request_id: str) -> dict[str, object]:
        """A RecommendReply as plain values. Raises InvalidRequest, SnapshotNotFound.

        A request whose process was stopped for longer than a lease of its snapshot lasts is answered anew, once.
        """
        leased_until_s = self._live.lease()
        reply = await self._answer(request, request_id=request_id)
        if self._live.outlived(leased_until_s):
            await self._live.check()
            reply = await self._answer(request, request_id=request_id)
        return reply

    async def _answer(self, request: RecommendRequest, *, request_id: str) -> dict[str, object]:
        budget_ms = self._spec.request_budget_ms
        deadline = Deadline.after_ms(min(request.deadline_ms or budget_ms, budget_ms))
        check_id(request.user_id, what="user_id")
        snapshot = self.pin()
        query = RankingQuery(
            snapshot=snapshot,
            user_id=request.user_id,
            n=request.n,
            session=known_items(snapshot, request.context.recent_items),
            excluded=np.array(known_items(snapshot, request.exclude), np.int32),
        )
        outcome = await self._cascade.run(query, deadline)
        stage_ms = {name: round(taken, 3) for name, taken in outcome.stage_ms.items()}
        reply: dict[str, object] = {
            "request_id": request_id,
            "snapshot": alias_value(snapshot.alias.version),
            "items": self._items(query, outcome, details=request.details),
            "decided_by": outcome.decided_by,
            "degraded": outcome.degraded,
            "stage_ms": stage_ms | {"total": round(deadline.elapsed_ms(), 3)},
        }
        if outcome.skipped:
            reply["skipped"] = outcome.skipped
        return reply

    def _items(self, query: RankingQuery, outcome: Outcome, *, details: bool) -> list[dict[str, object]]:
        item_ids, names = query.snapshot.content.items.item_ids, self._cascade.source_names
        rows: list[dict[str, object]] = [
            {"item_id": item_ids[index], "score": score, "source": names[source]}
            for index, score, source in zip(
                outcome.batch.ids.tolist(),
                np.round(outcome.batch.scores.astype(np.float64), 6).tolist(),
                outcome.batch.sources.tolist(),
                strict=True,
            )
        ]
        if details:
            items = query.snapshot.content.items
            reasons = Reasons(query)
            for row, index in zip(rows, outcome.batch.ids.tolist(), strict=True):
                row["title"] = items.titles[index]
                row["genres"] = items.genres[index]
                row["creator"] = items.creators[index]
                row["reason"] = reasons.of(index, source=str(row["source"]))
        return rows


class Reasons:
    """Why an item was a candidate, in words: its place in the user's list, and what in the history it goes with."""

    def __init__(self, query: RankingQuery) -> None:
        self._items = query.snapshot.content.items
        self._popular_rank = (
            {}
            if query.has_candidates
            else {item: at for at, item in enumerate(query.snapshot.content.popular.tolist(), 1)}
        )
        retrieved = query.record.item_indices.tolist() if query.record is not None else []
        self._rank = {item: at for at, item in enumerate(retrieved, 1)}
        self._history = query.history.tolist()

    def of(self, index: int, *, source: str) -> str:
        """One line."""
        if source == POPULAR:
            return f"no. {self._popular_rank.get(index, 0)} of what many took lately"
        if source == BACKFILL:
            return "fills the list: popular in the whole catalogue"
        place = f"no. {self._rank.get(index, 0)} of {len(self._rank)} retrieved"
        because = self._because(index)
        return f"{place}; {because}" if because else place

    def _because(self, index: int) -> str:
        columns, titles = self._items.columns, self._items.titles
        for item in self._history:
            if columns.creators[index] >= 0 and columns.creators[index] == columns.creators[item]:
                return f"from {self._items.creators[index]}, like your “{titles[item]}”"
        if self._history:
            alike = columns.genres[self._history] @ columns.genres[index]
            best = int(np.argmax(alike))
            if alike[best] >= _LIKE_FRACTION:
                return f"genres like your “{titles[self._history[best]]}”"
        return ""
