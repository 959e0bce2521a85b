"""deciding: one look at the canary that runs, filed where it is the last, then acted on; each step may be repeated after a kill."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import redis

from infra.catalog.applications.spec import ApplicationSpec
from infra.config.settings import Settings
from infra.contracts.canaries import Canary, CanaryMode
from infra.contracts.errors import FlipFenced, MoveNotAllowed
from infra.contracts.snapshots import Alias
from infra.experiments.filing import CanaryResult, file_ruling, filed_result, look, overrule
from infra.experiments.judgement import Judgement, Rules, Verdict, judge, told_hours
from infra.experiments.reading import Spans, read_spans
from infra.experiments.ruling import Ruling
from infra.experiments.shadow import ShadowReport, report_shadow
from infra.experiments.visits import canary_visits
from infra.snapshots.promotion import Promotion


@dataclass(frozen=True, slots=True)
class Running:
    """What runs beside what is live, by the alias of its generation."""

    live: Alias
    canary: Canary


class Decider:
    """Looks at one application's canary, and does what follows."""

    def __init__(
        self, promotion: Promotion, client: redis.Redis, spec: ApplicationSpec, chosen: Settings, *, actor: str
    ) -> None:
        """client: for the newest look; the logs are read by a client of their own."""
        self._promotion = promotion
        self._client = client
        self._spec = spec
        self._chosen = chosen
        self._actor = actor

    def running(self) -> Running | None:
        """What runs now, after a flip that was stopped half-way has been completed; None where nothing does."""
        standing = self._promotion.flips.recover()
        live, canary = standing.live, standing.canary
        return Running(live, canary) if live is not None and canary is not None else None

    def rule(self, running: Running, *, hours: float | None, now: datetime) -> Ruling:
        """Judge by what the logs hold. Where they no longer reach back to a canary's start it waits, and says so, until it expires.

        A shadow's lists are compared two by two, so those that are left will do.
        hours: how long it may run, in place of the setting.
        """
        rules = Rules.of(self._chosen, self._spec, hours=hours)
        since = running.canary.started_at
        spans = read_spans(self._chosen, self._spec, since=since, earlier=rules.visit.length, now=now)
        if running.canary.mode is CanaryMode.SHADOW:
            return self._ruling(running, _shadow(running, spans, rules, now))
        return self._ruling(running, _canary(running, spans, rules, now))

    def decide(self, running: Running, *, hours: float | None, now: datetime) -> Ruling | CanaryResult:
        """Look once; where that is the end, file it and act. A ruling where it waits, else what was filed.

        The judgement is filed before anything is moved: whoever is stopped between the two finds it at the next look, and acts
        by it without judging anew.
        """
        version = self._promotion.store.get(running.canary.version)
        filed = filed_result(version, running.live.generation)
        if filed is None:
            ruling = self.rule(running, hours=hours, now=now)
            look(self._client, ruling)
            if ruling.found.verdict is Verdict.WAITS:
                return ruling
            filed = file_ruling(version, ruling)
        try:
            self._act(filed)
        except (FlipFenced, MoveNotAllowed):
            running_now = self.running()
            if running_now is not None and running_now.live.generation == filed.generation:
                raise
            return self._overtaken(filed)
        return filed

    def _act(self, filed: CanaryResult) -> None:
        reason = f"canary of generation {filed.generation}: {filed.summary}"
        if filed.verdict is Verdict.PROMOTED:
            self._promotion.flip(self._promotion.store.get(filed.version), actor=self._actor, reason=reason)
        else:
            refused = filed.verdict is Verdict.ROLLED_BACK
            self._promotion.end_canary(filed.version, actor=self._actor, reason=reason, refused=refused)

    def _overtaken(self, filed: CanaryResult) -> CanaryResult:
        """Somebody else ended it in the same moment. What had passed and is not live has not been promoted."""
        live = self._promotion.flips.look().live
        if filed.verdict is not Verdict.PROMOTED or (live is not None and live.version == filed.version):
            return filed
        version = self._promotion.store.get(filed.version)
        return overrule(version, filed, Verdict.ENDED, "It had passed, and the alias was moved by somebody else first.")

    def _ruling(self, running: Running, found: Judgement | ShadowReport) -> Ruling:
        return Ruling(
            application=self._spec.name,
            live=running.live.version,
            canary=running.canary,
            generation=running.live.generation,
            actor=self._actor,
            found=found,
        )


def _shadow(running: Running, spans: Spans, rules: Rules, now: datetime) -> ShadowReport:
    return report_shadow(
        spans.exposures,
        spans.events,
        canary=running.canary,
        generation=running.live.generation,
        rule=rules.visit,
        lasts=rules.lasts,
        now=now,
    )


def _canary(running: Running, spans: Spans, rules: Rules, now: datetime) -> Judgement:
    visits = canary_visits(
        spans.exposures,
        spans.events,
        canary=running.canary,
        generation=running.live.generation,
        rule=rules.visit,
        now=now,
    )
    found = judge(visits, running.canary, rules, now)
    if not spans.trimmed:
        return found
    told = f"It can no longer be judged. {spans.trimmed} {spans.mend}"
    if now - running.canary.started_at < rules.lasts:
        return replace(found, verdict=Verdict.WAITS, because=told)
    return replace(found, verdict=Verdict.EXPIRED, because=f"Not decided within {told_hours(rules.lasts)}. {told}")
