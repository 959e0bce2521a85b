"""ranking: what a snapshot of the ranking application must pass, how severely, and at which thresholds."""

from __future__ import annotations

from infra.catalog.features import ranking as features
from validation.check import Severity
from validation.checks.catalogue import Catalogue
from validation.checks.consumed import Consumed
from validation.checks.coverage import Coverage
from validation.checks.duplicates import Duplicates
from validation.checks.finite_scores import FiniteScores
from validation.checks.integrity import Definition, Integrity
from validation.checks.length import Length
from validation.checks.network_model import NetworkModel
from validation.checks.overlap import Overlap
from validation.checks.popular import PopularLists
from validation.checks.ranker_model import RankerModel
from validation.checks.ranker_quality import RankerQuality
from validation.checks.recall import Recall
from validation.checks.record_shape import RecordShape
from validation.checks.score_distribution import ScoreDistribution
from validation.checks.score_map import ScoreMapHolds
from validation.checks.score_order import ScoreOrder
from validation.checks.score_range import ScoreRange
from validation.checks.unseen import Unseen
from validation.suites.suite import Suite

RANKING_SUITE = Suite(
    first=Integrity(
        severity=Severity.FAIL,
        definition=Definition(
            hash=features.definition_hash(),
            user_features=features.USER_FEATURES,
            item_features=features.ITEM_FEATURES,
            ranker_features=features.RANKER_FEATURES,
        ),
    ),
    then=(
        Coverage(severity=Severity.FAIL),
        RecordShape(severity=Severity.FAIL),
        Length(severity=Severity.FAIL),
        Duplicates(severity=Severity.FAIL),
        Catalogue(severity=Severity.FAIL),
        Unseen(severity=Severity.FAIL),
        Consumed(severity=Severity.FAIL),
        FiniteScores(severity=Severity.FAIL),
        ScoreRange(severity=Severity.FAIL),
        ScoreOrder(severity=Severity.FAIL),
        ScoreMapHolds(severity=Severity.FAIL),
        Recall(severity=Severity.FAIL, fail_below=0.95, warn_below=0.99),
        PopularLists(severity=Severity.FAIL),
        ScoreDistribution(severity=Severity.FAIL, warn_above=0.25, fail_above=4.0),
        Overlap(severity=Severity.FAIL, warn_below=0.25, fail_below=0.05),
        RankerModel(severity=Severity.FAIL),
        NetworkModel(severity=Severity.FAIL),
        RankerQuality(severity=Severity.WARN, tolerated_loss=0.05),
    ),
)
