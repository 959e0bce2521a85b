"""network_model: the network that the snapshot carries loads, takes the declared inputs and gives finite scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import great_expectations.expectations as gxe
import numpy as np

from infra.catalog.features.ranking import (
    LAST_ITEMS,
    LIGHT_FEATURES,
    NETWORK_FEATURES,
    NETWORK_HEAD,
    RANKER_FEATURES,
    light_scores,
    network_matrix,
)
from infra.contracts.candidates import Float32s
from infra.contracts.errors import SnapshotCorrupt
from infra.snapshots.network import Network
from infra.snapshots.tables import NETWORK
from validation.case import Case
from validation.check import Check, Figures, Requirement, Whole
from validation.checks.ranker_model import finite_scores_of, ranker_rows, ranker_scores
from validation.scan import KeptList

USERS = 32
"""Lists whose heads are scored for the trial."""

_LIGHT = [RANKER_FEATURES.index(name) for name in LIGHT_FEATURES]


@dataclass(frozen=True, slots=True)
class _Trial:
    """problem: why it cannot score; not_finite: users whose lists it gives scores that are not finite."""

    problem: str
    not_finite: tuple[str, ...]
    lists: int


@dataclass(frozen=True, kw_only=True)
class NetworkModel(Check):
    """A network that cannot score must not go live, also where it is off: somebody may put it on. A snapshot may have none."""

    name = "network_model"
    title = "The network can score"

    def measure(self, case: Case) -> Figures:
        found = _trial(case)
        return {
            "network_model_unusable": float(bool(found.problem)),
            "network_model_not_finite": float(len(found.not_finite)),
        }

    def requirements(self, case: Case, figures: Figures) -> Sequence[Requirement]:
        found = _trial(case)
        if NETWORK not in case.manifest.stages:
            seen = "no network"
        else:
            seen = found.problem or f"a network over {len(NETWORK_FEATURES)} inputs"
        return (
            Whole(
                gxe.ExpectColumnValuesToBeBetween(column="network_model_unusable", max_value=0),
                self.severity,
                wanted=f"none, or one over the {len(NETWORK_FEATURES)} inputs of this code with the light scorer that it looks at",
                seen=seen,
            ),
            finite_scores_of("network_model_not_finite", self.severity, found.not_finite, found.lists),
        )


def _trial(case: Case) -> _Trial:
    return case.once("network_model", lambda: _try(case))


def _try(case: Case) -> _Trial:
    stages = case.manifest.stages
    if NETWORK not in stages:
        return _Trial("", (), 0)
    problem = _misfit(case)
    if problem:
        return _Trial(problem, (), 0)
    try:
        network = Network(case.version.storage.read(_file(case)), inputs=len(NETWORK_FEATURES))
    except SnapshotCorrupt as error:
        return _Trial(str(error), (), 0)
    not_finite, n_lists = [], 0
    for kept in list(case.scan.kept.values())[:USERS]:
        rows = _rows(case, kept)
        if rows is not None:
            n_lists += 1
            if not np.all(np.isfinite(network.scores(rows))):
                not_finite.append(f"user {kept.user_id!r}")
    return _Trial("", tuple(not_finite), n_lists)


def _misfit(case: Case) -> str:
    stages, parts = case.manifest.stages, case.manifest.parts
    stage, light = stages[NETWORK], stages.get("light")
    if stage.inputs != NETWORK_FEATURES:
        return f"the manifest says that it takes {len(stage.inputs)} inputs, of which some are not this code's"
    if light is None or light.inputs != LIGHT_FEATURES or len(light.weights) != len(LIGHT_FEATURES):
        return "the light scorer, whose score it takes, is not there or not this code's"
    if stage.part not in parts or len(parts[stage.part].files) != 1:
        return f"its part {stage.part!r} is not one file of the manifest"
    return ""


def _file(case: Case) -> str:
    (name,) = case.manifest.parts[case.manifest.stages[NETWORK].part].files
    return name


def _rows(case: Case, kept: KeptList) -> Float32s | None:
    """float32 [<= NETWORK_HEAD, inputs] of the best by the trees; None for a list or ranker that other checks refuse."""
    features, trees = ranker_rows(case, kept), ranker_scores(case, kept)
    if features is None or trees is None or not np.all(np.isfinite(trees)):
        return None
    best = np.argsort(-trees, kind="stable")[:NETWORK_HEAD]
    light = light_scores(case.manifest.stages["light"].weights, [features[best, column] for column in _LIGHT])
    none_recent = np.zeros((len(best), LAST_ITEMS), np.float32)
    rows = network_matrix(features[best], trees=trees[best], light=light, products=none_recent)
    return None if np.any(np.isinf(rows)) else rows
