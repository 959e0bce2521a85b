"""case: one named request, the state that it meets, and what of its answer one wired stage decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

import redis.asyncio

from bentos.ranking.changes import UNAVAILABLE
from bentos.ranking.content import RankingSnapshot
from bentos.ranking.pipeline import ranking_steps
from bentos.ranking.query import RankingQuery
from bentos.ranking.schema import RecommendRequest
from infra.cascade.kinds import Filter, Hydrator, Scorer, Selector, Source, Stage
from infra.cascade.runner import Cascade
from infra.cascade.steps import Step, Together
from infra.nearline.boards import Board
from infra.resilience.deadline import Deadline
from tests.unit.bentos.ranking.asking import Asked

Steps = Sequence[Step[RankingQuery] | Together[RankingQuery]]
_METHODS: dict[type, tuple[str, ...]] = {
    Source: ("find",),
    Hydrator: ("hydrate",),
    Filter: ("remove",),
    Scorer: ("score", "score_by"),
    Selector: ("select",),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What holds of the answer, and no longer does once the stage is taken out (or, where one of its rules decides, the rule).

    decides: the stage's name. asks: fields of the request beside user_id. clicked: by the user since the batch. trending, new,
    unavailable: on the board. broken: stages that raise for this request. rule_off: the stage without the rule. settled_by: the
    scorer that was sure; what decides is then its step's `settles`. light: the light scorer's weights; none: the snapshot's.
    first, shows, hides: items; brings: a source that shows something; because: the filter's words; count: items shown.
    """

    name: str
    decides: str
    user: str = "nobody"
    asks: Mapping[str, object] = field(default_factory=dict)
    clicked: tuple[str, ...] = ()
    trending: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    unavailable: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    rule_off: Stage[RankingQuery] | None = None
    settled_by: str = ""
    light: tuple[float, ...] = ()
    first: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()
    hides: tuple[str, ...] = ()
    brings: str = ""
    because: str = ""
    decided_by: str = ""
    count: int | None = None

    @property
    def board(self) -> Board:
        """Each trending item was taken more often than the next."""
        return Board(
            now_us=1,
            offsets=(1,) * 16,
            lists={
                "trending_clicks": tuple((item, 1000 - at) for at, item in enumerate(self.trending)),
                "newest_items": tuple((item, 1_700_000_000_000 - at) for at, item in enumerate(self.new)),
            },
            about={item: {"title": (f"About {item}",)} for item in self.new},
            standing={UNAVAILABLE: dict.fromkeys(self.unavailable, "yes")} if self.unavailable else {},
        )

    def wrong(self, asked: Asked) -> str:
        """What of the answer is not as the case says; empty where all is."""
        items, told = asked.items, {gone.because for gone in asked.outcome.removed if gone.by == self.decides}
        checks: tuple[tuple[bool, str], ...] = (
            (tuple(items[: len(self.first)]) == self.first, f"begins with {items[: len(self.first)]}"),
            (set(self.shows) <= set(items), f"lacks {sorted(set(self.shows) - set(items))}"),
            (not set(self.hides) & set(items), f"shows {sorted(set(self.hides) & set(items))}"),
            (not self.brings or self.brings in asked.sources.values(), f"has nothing from {self.brings}"),
            (not self.because or self.because in told, f"was told {sorted(told)}"),
            (self.decided_by in ("", asked.outcome.decided_by), f"was decided by {asked.outcome.decided_by}"),
            (self.settled_by in ("", asked.outcome.settled_by), f"was settled by {asked.outcome.settled_by!r}"),
            (self.count in (None, len(items)), f"has {len(items)} items"),
            (set(asked.outcome.skipped) <= set(self.broken) or not self.broken, f"skipped {asked.outcome.skipped}"),
        )
        return "; ".join(text for holds, text in checks if not holds)

    def query(self, snapshot: RankingSnapshot) -> RankingQuery:
        """The request, with its board."""
        request = RecommendRequest.model_validate({"user_id": self.user, **self.asks})
        if self.light:
            snapshot = replace(snapshot, content=replace(snapshot.content, light=self.light))
        return RankingQuery.of(request, snapshot, board=self.board)

    async def answered(self, snapshot: RankingSnapshot, steps: Steps) -> Asked:
        """By those steps, which take all the time that they need."""
        query, cascade = self.query(snapshot), Cascade(each(steps, self._as_it_is))
        outcome = await cascade.run(query, Deadline.after_ms(60_000))
        return Asked(query, outcome, cascade.source_names)

    def without(self, steps: Steps) -> Steps:
        """The steps but for what decides."""
        return each(steps, self._left_out)

    def _as_it_is(self, step: Step[RankingQuery]) -> Step[RankingQuery]:
        stage = breaking(step.stage) if step.stage.name in self.broken else step.stage
        return replace(step, stage=stage, budget_ms=None)

    def _left_out(self, step: Step[RankingQuery]) -> Step[RankingQuery] | None:
        if step.stage.name != self.decides:
            return step
        if self.settled_by:
            return replace(step, settles=None)
        return None if self.rule_off is None else replace(step, stage=self.rule_off)


def wired(client: redis.asyncio.Redis) -> Steps:
    """As the service has them, but for what only watches."""
    return ranking_steps(client, lane=None)


def steps_of(steps: Steps) -> list[Step[RankingQuery]]:
    """One by one, in their order."""
    groups = (step.steps if isinstance(step, Together) else (step,) for step in steps)
    return [step for group in groups for step in group]


def each(steps: Steps, change: Callable[[Step[RankingQuery]], Step[RankingQuery] | None]) -> Steps:
    """The steps as the function makes them; None leaves one out."""
    changed: list[Step[RankingQuery] | Together[RankingQuery]] = []
    for step in steps:
        group = [made for one in (step.steps if isinstance(step, Together) else (step,)) if (made := change(one))]
        changed += [Together(*group)] if len(group) > 1 else group
    return changed


def breaking(stage: Stage[RankingQuery]) -> Stage[RankingQuery]:
    """The same, raising whenever it is run."""
    broken = copy(stage)
    for kind, methods in _METHODS.items():
        for method in methods if isinstance(stage, kind) else ():
            setattr(broken, method, _away)
    return broken


async def _away(*_: object) -> None:
    raise RuntimeError("broken for this case")
