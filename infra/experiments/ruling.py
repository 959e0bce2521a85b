"""ruling: a look at a canary or a shadow in its circumstances."""

from __future__ import annotations

from dataclasses import dataclass

from infra.contracts.canaries import Canary
from infra.contracts.ids import ApplicationName, VersionName
from infra.experiments.judgement import Judgement
from infra.experiments.shadow import ShadowReport


@dataclass(frozen=True, slots=True)
class Ruling:
    """live: what the canary was compared with; actor: who looked."""

    application: ApplicationName
    live: VersionName
    canary: Canary
    generation: int
    actor: str
    found: Judgement | ShadowReport
