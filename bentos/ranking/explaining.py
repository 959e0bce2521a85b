"""explaining: POST /explain: a logged answer made again, or a request answered for the explanation alone; one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import numpy as np

from bentos.ranking.content import RankingContent, RankingSnapshot
from bentos.ranking.explain_schema import MOST_ITEMS, ExplainReply, ExplainRequest
from bentos.ranking.explanation import Explanation
from bentos.ranking.offline import Offline, Replayed, answer_again, failed_stages
from bentos.ranking.pipeline import steps_with
from bentos.ranking.query import RankingQuery, known_items
from bentos.ranking.reader import Reader, UserReader
from bentos.ranking.recalling import Recall
from bentos.ranking.rulebook import check_pins
from bentos.ranking.schema import RecommendRequest
from bentos.ranking.stages import RETRIEVAL
from bentos.ranking.witness import Run, Witness
from bentos.web.exchange import BadRequest, Exchange, Reply, json_reply
from bentos.web.front import Route
from infra.cascade.batch import Batch
from infra.cascade.kinds import Filter
from infra.cascade.lane import Lane
from infra.cascade.runner import Cascade
from infra.contracts.candidates import Int32s
from infra.contracts.decisions import Decision
from infra.contracts.errors import ContractViolation, DependencyUnavailable, SnapshotNotFound
from infra.contracts.exposures import Arm
from infra.contracts.ids import alias_value, check_id
from infra.resilience.deadline import Deadline
from infra.snapshots.live import LiveSnapshots

_UNHURRIED_MS = 60_000.0
_MOST_WAITING = 8
"""Calls that wait for their turn; more are refused."""

WITHIN_S = 30.0
"""How long one call may take, its turn included: an archived answer's snapshot and events take some seconds."""

_MOST_DIFFERENCES = 5


@dataclass(frozen=True, slots=True)
class _Explained:
    """A run, and what it has to do with an earlier answer."""

    run: Run
    request_id: str
    arm: Arm
    exact: bool | None
    made_from: str
    differences: Sequence[str] = ()
    note: str = ""


class Explainer:
    """Explains lists. It counts nothing and logs nothing, and takes from requests only its share of the processor: native
    calls, and whatever is read from the store, run in a thread of its own."""

    def __init__(
        self,
        live: LiveSnapshots[RankingContent],
        reader: UserReader,
        recall: Recall,
        *,
        offline: Callable[[datetime], Offline],
        within_s: float = WITHIN_S,
    ) -> None:
        """offline: what makes answers from that moment on again from the store; it is made anew for each, for it holds a whole
        snapshot. within_s: how long a call may take, its turn included."""
        self._live = live
        self._reader = reader
        self._recall = recall
        self._offline = offline
        self._within_s = within_s
        self._lane = Lane("explaining")
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    async def explain(self, asked: ExplainRequest, *, request_id: str) -> dict[str, object]:
        """An ExplainReply as plain values. Raises BadRequest, InvalidRequest, SnapshotNotFound, DependencyUnavailable.

        A call that takes too long gives its turn to the next, also where nobody waits for it any more.
        """
        for item_id in asked.items:
            check_id(item_id, what="items")
        async with self._one_at_a_time():
            if asked.request is not None:
                explained = await self._now(asked.request, request_id=request_id)
            else:
                explained = await self._then(asked.request_id or "")
            run = explained.run
            hindrances = await _hindrances(run, asked.items)
            return await self._lane.run(partial(_reply, explained, asked.items, hindrances))

    def close(self) -> None:
        """Let go of the thread."""
        self._lane.close()

    @asynccontextmanager
    async def _one_at_a_time(self) -> AsyncIterator[None]:
        if self._waiting >= _MOST_WAITING:
            raise DependencyUnavailable(f"{self._waiting} explanations wait already.", mend="Ask again in a second.")
        self._waiting += 1
        timeout = asyncio.timeout(self._within_s)
        try:
            async with timeout, self._turn:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise DependencyUnavailable(
                f"The explanation took longer than {self._within_s:g} s.",
                mend="Ask again when less is asked at a time.",
            ) from error
        finally:
            self._waiting -= 1

    async def _now(self, request: RecommendRequest, *, request_id: str) -> _Explained:
        """What the request would be answered now, by stages that have all the time they need."""
        check_id(request.user_id, what="user_id")
        check_pins(request.rules, n=request.n)
        assignment = self._live.assign(request.user_id)
        if assignment is None:
            raise SnapshotNotFound(f"Nothing is served: {self._live.problem}.", mend=self._live.mend)
        witness = Witness()
        steps = [replace(step, budget_ms=None) for step in steps_with(self._reader, lane=self._lane)]
        cascade = Cascade(witness.beside(steps))
        query = RankingQuery.of(request, assignment.shown)
        outcome = await cascade.run(query, Deadline.after_ms(_UNHURRIED_MS))
        run = Run(query, outcome, witness.sights, cascade.source_names)
        return _Explained(run, request_id, assignment.arm, None, "request")

    async def _then(self, request_id: str) -> _Explained:
        """A logged answer: by what is known now, which for one of a moment ago is what was known then; else from the archive."""
        decision = await self._recall.find(request_id)
        if decision is None:
            raise BadRequest(
                f"There is no answer {request_id[:100]!r}.", status=404, mend="Logged answers are kept in the archive."
            )
        live = await self._by_live_state(decision)
        if live is not None and live.is_exact:
            return _again(decision, live, made_from="live state")
        try:
            archived = await self._lane.run(partial(self._from_archive, decision))
        except (ContractViolation, DependencyUnavailable, SnapshotNotFound, OSError) as error:
            if live is None:
                raise DependencyUnavailable(
                    f"The answer {request_id} of {decision.version} cannot be made again: {error}",
                    mend="Its events reach the archive within HEADGATE_ARCHIVE_SECONDS, where a nearline worker runs.",
                ) from error
            note = f"What the answer was made of is not archived yet ({error}). Ask again in a minute."
            return _again(decision, live, made_from="live state", note=note)
        return _again(decision, archived, made_from="archive")

    async def _by_live_state(self, decision: Decision) -> Replayed | None:
        """None where the answer's snapshot is not served any more."""
        snapshot = self._held(decision)
        if snapshot is None:
            return None
        reader = _ReaderThen(self._reader, decision)
        return await answer_again(decision, snapshot, reader, board=None, lane=self._lane)

    def _held(self, decision: Decision) -> RankingSnapshot | None:
        served = (self._live.current, self._live.canary)
        return next((it for it in served if it is not None and it.alias.version == decision.version), None)

    def _from_archive(self, decision: Decision) -> Replayed:
        """In the thread."""
        offline = self._offline(datetime.fromtimestamp(decision.basis.now_us / 1e6, UTC))
        return asyncio.run(offline.replay(decision))


def explain_route(explainer: Explainer) -> Route:
    """POST /explain."""

    async def post(exchange: Exchange) -> Reply:
        asked = await exchange.json(ExplainRequest)
        return json_reply(await explainer.explain(asked, request_id=exchange.request_id))

    return Route(
        "POST",
        "/explain",
        post,
        "How a list came about, item by item",
        "Of an answer that was given, by its request id, or of a request, which is answered for this alone: by stages that have "
        "all the time they need, counted and logged nowhere. `items` are told of too, in the list or not. One call at a time.",
        takes=ExplainRequest,
        gives=ExplainReply,
        errors=(400, 404, 408, 413, 415, 422, 503),
    )


class _ReaderThen:
    """Reads what Redis knows now; where it did not answer then, it does not now."""

    def __init__(self, reader: Reader, decision: Decision) -> None:
        self._reader = reader
        self._failed = failed_stages(decision).get(RETRIEVAL)
        self._saw_nothing = decision.basis.offset is None

    async def read(self, query: RankingQuery) -> None:
        """Raises DependencyUnavailable as it did then."""
        if not self._saw_nothing:
            await self._reader.read(query)
        if self._failed is not None:
            query.learn(None, query.seen)
            raise DependencyUnavailable(self._failed)

    async def older(self, query: RankingQuery) -> Int32s:
        """int32."""
        return await self._reader.older(query)


def _again(decision: Decision, replayed: Replayed, *, made_from: str, note: str = "") -> _Explained:
    differences = [f"{one.kind}: {one.text}" for one in replayed.compared.differences[:_MOST_DIFFERENCES]]
    return _Explained(replayed.run, decision.request_id, decision.arm, replayed.is_exact, made_from, differences, note)


async def _hindrances(run: Run, items: Sequence[str]) -> dict[int, tuple[str, str]]:
    """Of items that are no candidates: the first filter that would have taken each out, and why."""
    query = run.query
    seen = np.concatenate([np.empty(0, np.int32), *(sight.after.ids for sight in run.sights)])
    ids = np.setdiff1d(np.array(known_items(query.snapshot, items, query.board), np.int32), seen)
    found: dict[int, tuple[str, str]] = {}
    batch = Batch(ids, np.zeros(len(ids), np.float32), np.zeros(len(ids), np.uint8))
    filters = [step.stage for sight in run.sights for step in sight.steps if isinstance(step.stage, Filter)]
    for stage in filters:
        if len(ids) and stage.applies(query):
            for removal in await stage.remove(query, batch):
                for index in ids[removal.rows].tolist():
                    found.setdefault(index, (stage.name, removal.because))
    return found


def _reply(explained: _Explained, items: Sequence[str], hindrances: dict[int, tuple[str, str]]) -> dict[str, object]:
    run, alias = explained.run, explained.run.query.snapshot.alias
    outcome, item_ids = run.outcome, run.query.snapshot.content.items.item_ids
    shown = [item_ids[index] for index in outcome.batch.ids[: MOST_ITEMS - len(items)].tolist()]
    explanation = Explanation(run, hindrances=hindrances)
    return {
        "request_id": explained.request_id,
        "user_id": run.query.user_id,
        "snapshot": alias_value(alias.version),
        "generation": alias.generation,
        "arm": explained.arm.value,
        "decided_by": outcome.decided_by,
        "settled_by": outcome.settled_by,
        "degraded": outcome.degraded,
        "exact": explained.exact,
        "made_from": explained.made_from,
        "differences": list(explained.differences),
        "note": explained.note,
        "stages": explanation.stages(),
        "items": explanation.of(shown),
        "asked": explanation.of(items),
    }
