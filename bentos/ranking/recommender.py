"""recommender: from a request to its answer: the user's snapshot, the cascade, what came out and why; then who is told of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from bentos.ranking.boards import NEW, TRENDING, why_new, why_trending
from bentos.ranking.content import RankingContent, RankingSnapshot
from bentos.ranking.decisions import decision_of
from bentos.ranking.exposures import ExposureWriter, exposure_of
from bentos.ranking.query import RankingQuery
from bentos.ranking.queued import QueuedWriter
from bentos.ranking.rulebook import check_pins
from bentos.ranking.rules import PINNED, not_pinned
from bentos.ranking.schema import RecommendContext, RecommendRequest
from bentos.ranking.schema_lists import SessionRequest
from bentos.ranking.shadow import Asked, ShadowScorer
from bentos.ranking.sources import FRESH, why_fresh
from bentos.ranking.stages import BACKFILL, POPULAR
from infra.cascade.batch import Outcome
from infra.cascade.runner import Cascade
from infra.catalog.applications.spec import ApplicationSpec
from infra.contracts.decisions import Decision
from infra.contracts.errors import SnapshotNotFound
from infra.contracts.exposures import Arm, Exposure
from infra.contracts.ids import alias_value, check_id
from infra.resilience.complaints import Complaints
from infra.resilience.deadline import Deadline
from infra.snapshots.live import LiveSnapshots
from infra.snapshots.pinned import Assignment

_log = logging.getLogger("headgate.recommender")

_LIKE_FRACTION = 0.5
"""A cosine of genres from which on two items are said to be alike."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """A RecommendReply as plain values, and what is done with it once it stands."""

    reply: dict[str, object]
    exposure: Exposure
    decision: Decision
    shadow: RankingSnapshot | None


class Recommender:
    """Answers requests for lists, each from the snapshot that its user is assigned to."""

    def __init__(
        self,
        live: LiveSnapshots[RankingContent],
        cascade: Cascade[RankingQuery],
        spec: ApplicationSpec,
        *,
        exposures: ExposureWriter,
        decisions: QueuedWriter[Decision],
        shadow: ShadowScorer,
    ) -> None:
        """exposures, decisions: are given every list that is shown. shadow: every request of a user for whom one scores along."""
        self._live = live
        self._cascade = cascade
        self._spec = spec
        self._exposures = exposures
        self._decisions = decisions
        self._shadow = shadow
        self._complaints = Complaints(_log)

    def pin(self) -> RankingSnapshot:
        """The snapshot that is live now. Raises SnapshotNotFound."""
        pinned = self._live.current
        if pinned is None:
            raise self._nothing()
        return pinned

    def assign(self, user_id: str) -> Assignment[RankingContent]:
        """Which snapshot that user is shown now, for the length of one request. Raises SnapshotNotFound."""
        assignment = self._live.assign(user_id)
        if assignment is None:
            raise self._nothing()
        return assignment

    async def recommend(
        self, request: RecommendRequest, *, request_id: str, within_ms: float | None = None
    ) -> dict[str, object]:
        """A RecommendReply as plain values. within_ms: of the call that this is a part of. Raises InvalidRequest, SnapshotNotFound.

        A request whose process was stopped for longer than a lease of its snapshot lasts is answered anew, once; of the first
        answer only the time counts. Whoever answers has what is left of the one deadline; where that is nothing, the stages that
        have no budget of their own still make a list, of what is popular.
        """
        budget_ms = self._budget_ms(request.deadline_ms, within_ms)
        deadline = Deadline.after_ms(budget_ms)
        check_id(request.user_id, what="user_id")
        check_pins(request.rules, n=request.n)
        asked = Asked(request, request_id, budget_ms)
        answer = await self._leased(asked, deadline)
        if self._exposures.wants(request.user_id):
            self._exposures.note(answer.exposure)
            self._decisions.note(answer.decision)
            if answer.shadow is not None:
                self._shadow.score(asked, answer.shadow)
        return answer.reply

    async def session(self, request: SessionRequest, *, request_id: str) -> dict[str, object]:
        """A RecommendReply for nobody known, from the live snapshot; neither it nor its features are logged: no user, no click
        that could be told to be of this list. Raises as `recommend` does."""
        budget_ms = self._budget_ms(request.deadline_ms)
        deadline = Deadline.after_ms(budget_ms)
        check_pins(request.rules, n=request.n)
        anonymous = RecommendRequest(
            user_id="",
            n=request.n,
            exclude=request.exclude,
            rules=request.rules,
            details=request.details,
            context=RecommendContext(recent_items=request.recent_items),
        )
        return (await self._leased(Asked(anonymous, request_id, budget_ms), deadline)).reply

    def _budget_ms(self, *stated_ms: float | None) -> float:
        """The application's, or less where less is stated."""
        return min([self._spec.request_budget_ms, *(ms for ms in stated_ms if ms is not None)])

    async def _leased(self, asked: Asked, deadline: Deadline) -> _Answer:
        leased_until_s = self._live.lease()
        answer = await self._answer_surely(asked, deadline)
        if self._live.outlived(leased_until_s):
            await self._live.check()
            answer = await self._answer_surely(asked, deadline)
        return answer

    def _nothing(self) -> SnapshotNotFound:
        return SnapshotNotFound(f"{self._spec.name} has nothing to serve: {self._live.problem}.", mend=self._live.mend)

    async def _answer_surely(self, asked: Asked, deadline: Deadline) -> _Answer:
        """From the assigned snapshot; where that is a canary and it raises, from the live one, which counts against the canary."""
        user_id = asked.request.user_id
        assignment = self.assign(user_id) if user_id else Assignment(self.pin(), Arm.LIVE)
        try:
            return await self._answer(asked, assignment, deadline)
        except Exception as error:
            live = self._live.current
            if assignment.arm is not Arm.CANARY or live is None or live is assignment.shown:
                raise
            version = assignment.shown.alias.version
            self._complaints.note("canary", f"the canary {version} failed a request: {type(error).__name__}: {error}")
            return await self._answer(asked, Assignment(live, Arm.CANARY), deadline)

    async def _answer(self, asked: Asked, assignment: Assignment[RankingContent], deadline: Deadline) -> _Answer:
        query = RankingQuery.of(asked.request, assignment.shown, deadline=deadline)
        outcome = await self._cascade.run(query, deadline)
        items = self._items(query, outcome, details=asked.request.details)
        total_ms = deadline.elapsed_ms()
        stage_ms = {name: round(taken, 3) for name, taken in outcome.stage_ms.items()}
        reply: dict[str, object] = {
            "request_id": asked.request_id,
            "snapshot": alias_value(assignment.shown.alias.version),
            "items": items,
            "decided_by": outcome.decided_by,
            "degraded": outcome.degraded,
            "stage_ms": stage_ms | {"total": round(total_ms, 3)},
        }
        if outcome.skipped:
            reply["skipped"] = outcome.skipped
        if pinned := asked.request.rules.pin:
            missing = not_pinned(query, pinned, outcome)
            reply |= {"not_pinned": missing} if missing else {}
        exposure = exposure_of(query, outcome, request_id=asked.request_id, arm=assignment.arm, total_ms=total_ms)
        decision = decision_of(query, outcome, asked.request, shown=exposure)
        return _Answer(reply, exposure, decision, assignment.shadow)

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
                face = query.board.face(index)
                row["title"] = items.titles[face]
                row["genres"] = items.genres[face]
                row["creator"] = items.creators[face]
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
        self._history = query.board.faces_of(query.history).tolist()
        self._query = query

    def of(self, index: int, *, source: str) -> str:
        """One line."""
        if source == POPULAR:
            return f"no. {self._popular_rank.get(index, 0)} of what many took lately"
        if source == FRESH:
            return why_fresh(self._query, index)
        if source == TRENDING:
            return why_trending(self._query.board, index)
        if source == NEW:
            return why_new(self._query.board, index)
        if source == PINNED:
            return "pinned by the request"
        if source == BACKFILL:
            return "fills the list: popular in the whole catalogue"
        place = f"no. {self._rank.get(index, 0)} of {len(self._rank)} retrieved"
        because = self._because(index)
        return f"{place}; {because}" if because else place

    def _because(self, index: int) -> str:
        columns, titles, own = self._items.columns, self._items.titles, self._query.board.face(index)
        for item in self._history:
            if columns.creators[own] >= 0 and columns.creators[own] == columns.creators[item]:
                return f"from {self._items.creators[own]}, like your “{titles[item]}”"
        if self._history:
            alike = columns.genres[self._history] @ columns.genres[own]
            best = int(np.argmax(alike))
            if alike[best] >= _LIKE_FRACTION:
                return f"genres like your “{titles[self._history[best]]}”"
        return ""
