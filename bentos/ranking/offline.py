"""offline: an archived answer made again from the store alone, through the same stages, and compared with what was logged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from bentos.ranking.content import RankingSnapshot
from bentos.ranking.decisions import decision_of
from bentos.ranking.differences import Compared, compare
from bentos.ranking.exposures import exposure_of
from bentos.ranking.past_boards import PastBoards
from bentos.ranking.pipeline import steps_with
from bentos.ranking.query import PLAN, RankingQuery
from bentos.ranking.reader import Reader, checked_record
from bentos.ranking.schema import RecommendRequest
from bentos.ranking.sealed import SealedSnapshots, SealedUsers
from bentos.ranking.stages import FEATURES, RETRIEVAL
from bentos.ranking.trees import RankerScorer
from bentos.ranking.witness import Run, Witness, without_looks
from infra.cascade.batch import Batch, Column
from infra.cascade.kinds import Found, Hydrator, Scorer, Selector, Source, Stage
from infra.cascade.lane import Lane
from infra.cascade.runner import Cascade
from infra.cascade.steps import SETTLED_BY, Step
from infra.contracts.candidates import Float32s, Int32s
from infra.contracts.decisions import Basis, Decision
from infra.contracts.errors import ContractViolation, DependencyUnavailable, InvalidRequest
from infra.contracts.events import Record, shard_of
from infra.contracts.ids import ApplicationName, VersionName
from infra.eventlog import records as wire
from infra.nearline.archive import archive_of, end_of, read_archive
from infra.nearline.boards import Board
from infra.nearline.past import Past, reach_of
from infra.nearline.pending import Seen
from infra.resilience.deadline import Deadline
from infra.snapshots.storage import Storage
from infra.snapshots.versions import SnapshotStore

_UNHURRIED_MS = 3_600_000.0


@dataclass(frozen=True, slots=True)
class Replayed:
    """An answer made again. made: what came out, as it would be logged. compared: with what was logged.

    candidates: all that were scored, with their features, before any was chosen; names: the item ids of all indices.
    run: what every step left.
    """

    made: Decision
    compared: Compared
    candidates: Batch
    names: Sequence[str]
    run: Run

    @property
    def is_exact(self) -> bool:
        """Whether nothing differs by a bit."""
        return not self.compared.differences

    @property
    def item_ids(self) -> list[str]:
        """The candidates' ids, in order."""
        return [self.names[index] for index in self.candidates.ids.tolist()]

    @property
    def vectors(self) -> Float32s | None:
        """float32 [candidates, columns]; None where they have none, as those of the popular list."""
        found = self.candidates.columns.get(FEATURES)
        return None if found is None else found.astype(np.float32, copy=False)


class Offline:
    """Makes answers again. What it reads (versions, their users, the event archive) stays in memory for the next ones."""

    def __init__(
        self, store: str, application: ApplicationName, *, horizon: int, since: datetime | None = None
    ) -> None:
        """horizon: offsets within which a record that was sent twice is found. since: the moment of the first answer that is asked
        for; of the event archive nothing is read that was older than any feature's window then. None: all is.
        """
        reach = None if since is None else reach_of(PLAN, since)
        self._archive = archive_of(store, application)
        self._past = Past(self._archive, PLAN, horizon=horizon, since=reach)
        self._boards = PastBoards(self._archive, horizon=horizon, since=reach)
        self._snapshots = SealedSnapshots(SnapshotStore(store, application))
        self._expected: dict[VersionName, set[str]] = {}

    def expect(self, decisions: Iterable[Decision]) -> None:
        """Say which answers come, so that each version's users are looked up together."""
        for decision in decisions:
            self._expected.setdefault(decision.version, set()).add(decision.user_id)

    def seen(self, decision: Decision) -> Seen | None:
        """What the stream knew of the user at the answer's basis. Raises ContractViolation where the archive ends before."""
        basis = decision.basis
        if basis.offset is None:
            return None
        entity = ("user", decision.user_id)
        state = self._past.state_at(entity, {shard_of(*entity): basis.offset}, basis.pending)
        uncounted = _uncounted(self._archive, entity, basis, after=basis.offset)
        return Seen(*entity, state, basis.offset, basis.pending, basis.is_whole, uncounted, ())

    async def replay(self, decision: Decision) -> Replayed:
        """Make it again from its basis. Raises SnapshotError where the version is gone, ContractViolation where events are."""
        return await self.replay_knowing(decision, self.seen(decision))

    async def replay_knowing(self, decision: Decision, seen: Seen | None) -> Replayed:
        """The same, of a user of whom the stream knew that."""
        snapshot, users = self._snapshots.get(decision.version)
        users.look_up(self._expected.pop(decision.version, set()) | {decision.user_id})
        reader = _PastReader(users, seen, failed_stages(decision))
        return await answer_again(decision, snapshot, reader, board=self._boards.at(decision.basis))


async def answer_again(
    decision: Decision,
    snapshot: RankingSnapshot,
    reader: Reader,
    *,
    board: Board | None,
    lane: Lane | None = None,
) -> Replayed:
    """That answer from its snapshot, by what the reader and the board know. board: None for the newest one.

    Raises InvalidRequest where the log could not keep all that was asked.
    """
    request, failed = request_of(decision), failed_stages(decision)
    pinned = replace(snapshot, alias=replace(snapshot.alias, generation=decision.generation))
    query = RankingQuery.of(request, pinned, board=board)
    query.now_us = decision.basis.now_us
    witness = Witness()
    cascade = Cascade(witness.beside(_steps(reader, failed, lane)), complain=_say_nothing)
    outcome = await cascade.run(query, Deadline.after_ms(_UNHURRIED_MS), extents=decision.extents)
    outcome = replace(outcome, stage_ms=without_looks(outcome.stage_ms))
    shown = exposure_of(query, outcome, request_id=decision.request_id, arm=decision.arm, total_ms=0.0)
    made = decision_of(query, outcome, request, shown=shown)
    names, candidates = snapshot.content.items.item_ids, witness.left_by(RankerScorer.name)
    run = Run(query, outcome, witness.sights, cascade.source_names)
    return Replayed(made, compare(decision, made), candidates, names, run)


def _say_nothing(stage: str, because: str) -> None:
    """A stage that fails as it did then is no news."""


class _PastReader:
    """Gives a query what Redis gave it then."""

    def __init__(self, users: SealedUsers, seen: Seen | None, skipped: Mapping[str, str]) -> None:
        self._users = users
        self._seen = seen
        self._skipped = skipped

    async def read(self, query: RankingQuery) -> None:
        """Where the record could not be read, what the stream knew may have been."""
        query.learn(None, self._seen)
        if RETRIEVAL in self._skipped:
            raise DependencyUnavailable(self._skipped[RETRIEVAL])
        payload = self._users.record(query.user_id)
        if payload is not None:
            record = checked_record(payload, n_items=query.snapshot.content.n_items)
            query.learn(record, self._seen)

    async def older(self, query: RankingQuery) -> Int32s:
        """int32."""
        return np.frombuffer(self._users.older(query.user_id), "<i4")


def failed_stages(decision: Decision) -> dict[str, str]:
    """The stages that failed then; those that did a part, or were left out because an earlier one was sure, do so again."""
    return {
        name: because
        for name, because in decision.skipped.items()
        if name not in decision.extents and not because.startswith(SETTLED_BY)
    }


def _steps(reader: Reader, skipped: Mapping[str, str], lane: Lane | None) -> list[Step[RankingQuery]]:
    """The service's steps without a clock; those that did not count then do not count again."""
    steps: list[Step[RankingQuery]] = []
    for step in steps_with(reader, lane=lane):
        because = skipped.get(step.stage.name) if step.stage.name != RETRIEVAL else None
        stage = step.stage if because is None else _failing(step.stage, because)
        steps.append(replace(step, stage=stage, budget_ms=None))
    return steps


class _Failing(Stage[RankingQuery]):
    """A stage that fails as it did then."""

    def __init__(self, stage: Stage[RankingQuery], because: str) -> None:
        self.name = stage.name
        self._stage = stage
        self._because = because

    def applies(self, query: RankingQuery) -> bool:
        return self._stage.applies(query)

    def fail(self) -> DependencyUnavailable:
        return DependencyUnavailable(self._because)


class _FailingSource(_Failing, Source[RankingQuery]):
    async def find(self, query: RankingQuery, batch: Batch) -> Found:
        raise self.fail()


class _FailingHydrator(_Failing, Hydrator[RankingQuery]):
    async def hydrate(self, query: RankingQuery, batch: Batch) -> Mapping[str, Column]:
        raise self.fail()


class _FailingScorer(_Failing, Scorer[RankingQuery]):
    async def score(self, query: RankingQuery, batch: Batch) -> Float32s:
        raise self.fail()


class _FailingSelector(_Failing, Selector[RankingQuery]):
    async def select(self, query: RankingQuery, batch: Batch) -> NDArray[np.integer]:
        raise self.fail()


_FAILING: tuple[tuple[type[Stage[RankingQuery]], type[_Failing]], ...] = (
    (Source, _FailingSource),
    (Hydrator, _FailingHydrator),
    (Scorer, _FailingScorer),
    (Selector, _FailingSelector),
)


def _failing(stage: Stage[RankingQuery], because: str) -> Stage[RankingQuery]:
    """Filters fail the request, so that no answer skipped one."""
    for kind, failing in _FAILING:
        if isinstance(stage, kind):
            return failing(stage, because)
    raise ContractViolation(f"An answer says that it skipped {stage.name}, which cannot be skipped.")


def request_of(decision: Decision) -> RecommendRequest:
    """Raises InvalidRequest where the log could not keep all that was asked."""
    said = decision.request
    if "items_named" in said:
        raise InvalidRequest(f"The request named {said['items_named']} items, more than the decision log keeps.")
    return RecommendRequest.model_validate(
        {
            "user_id": decision.user_id,
            "n": said["n"],
            "context": {name: said[name] for name in ("recent_items", "hour", "device") if name in said},
            "exclude": said["exclude"],
            "rules": said.get("rules", {}),
            "deadline_ms": said["deadline_ms"],
        }
    )


def _uncounted(archive: Storage, entity: tuple[str, str], basis: Basis, *, after: int) -> tuple[Record, ...]:
    """Those records, offsets rising. Raises ContractViolation where the archive ends before the last of them."""
    missing, shard = set(basis.uncounted), shard_of(*entity)
    found: list[Record] = []
    if missing:
        for piece in read_archive(archive, shard, after=after, upto=end_of(archive, shard)):
            for record in wire.decode(piece.payloads):
                if (record.kind, record.entity_id) == entity and record.event_id in missing:
                    found.append(record)
                    missing.remove(record.event_id)
    if missing:
        raise ContractViolation(
            f"The archive {archive.url} lacks {len(missing)} records of {entity} behind offset {after}.",
            mend="Run: python -m infra.nearline archive",
        )
    return tuple(found)
