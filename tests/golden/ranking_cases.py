"""ranking_cases: the feed's golden cases; whoever wires a stage, filter or rule adds the case that it decides.

Of the tiny world: item k has genres GENRES[k % 5] and GENRES[k // 5 % 5], and creator "studio k % 11" unless 7 divides k. u7's
list begins with i187 i152 i107 i155 i110 i222, its history with i109, and is longer than a record holds; "nobody" is unknown.
"""

from __future__ import annotations

from bentos.ranking.rules import PinsSelector
from bentos.ranking.stages import DiversitySelector
from tests.golden.case import Case

_MIXED = ("i5", "i10", "i15", "i6", "i12", "i18")
"""Three dramas, then none."""

_ONE_STUDIO = ("i12", "i1", "i6", "i18", "i24")
"""The first two are by studio 1."""

CASES = (
    Case(
        name="a known user sees the list that batch worked out",
        decides="retrieval",
        user="u7",
        asks={"n": 100},
        brings="retrieval",
        shows=("i187", "i152"),
    ),
    Case(
        name="who has just taken one item sees what goes with it",
        decides="fresh",
        asks={"context": {"recent_items": ["i17"]}},
        brings="fresh",
        decided_by="fresh",
    ),
    Case(
        name="an unknown user sees first what many take now",
        decides="trending",
        asks={"n": 5},
        trending=("i24", "i12"),
        first=("i24", "i12"),
    ),
    Case(name="an unknown user sees what was popular", decides="popular", brings="popular", decided_by="popular"),
    Case(
        name="an item that the snapshot has not is shown between the popular ones",
        decides="new",
        new=("n1",),
        shows=("n1",),
    ),
    Case(
        name="what is pinned is shown although nothing else brought it",
        decides="pinned",
        asks={"n": 5, "rules": {"pin": {"i250": 2}}},
        shows=("i250",),
    ),
    Case(
        name="what was taken in this session is not shown again",
        decides="consumed",
        user="u7",
        asks={"n": 100, "context": {"recent_items": ["i187"]}},
        hides=("i187",),
        because="consumed in this session",
    ),
    Case(
        name="what was clicked since the batch is not shown again",
        decides="consumed",
        user="u7",
        asks={"n": 100},
        clicked=("i152",),
        hides=("i152",),
        because="consumed since the batch",
    ),
    Case(
        name="what was consumed before the batch is not shown again, pinned or not",
        decides="consumed",
        user="u7",
        asks={"n": 10, "rules": {"pin": {"i109": 1}}},
        hides=("i109",),
        because="consumed before the batch",
    ),
    Case(
        name="what the request excludes is not shown",
        decides="excluded",
        user="u7",
        asks={"n": 100, "exclude": ["i107"]},
        hides=("i107",),
        because="excluded by the request",
    ),
    Case(
        name="what is not available any more is not shown",
        decides="available",
        user="u7",
        asks={"n": 100},
        unavailable=("i187", "i107"),
        hides=("i187", "i107"),
        because="not available",
    ),
    Case(
        name="of a genre that is denied nothing is shown",
        decides="rules",
        user="u7",
        asks={"n": 50, "rules": {"deny_categories": ["Comedy"]}},
        hides=("i187", "i107", "i155"),
        because="of a category that the request denies",
    ),
    Case(
        name="where genres are allowed nothing of others is shown",
        decides="rules",
        user="u7",
        asks={"n": 50, "rules": {"allow_categories": ["Music"]}},
        hides=("i107", "i155", "i110"),
        because="of no category that the request allows",
    ),
    Case(
        name="by a creator who is denied nothing is shown",
        decides="rules",
        user="u7",
        asks={"n": 100, "rules": {"deny_creators": ["studio 8"]}},
        hides=("i107", "i151"),
        because="by a creator whom the request denies",
    ),
    Case(
        name="while the trees are away the light scorer decides a known user's list",
        decides="light",
        user="u7",
        broken=("ranker", "network"),
        decided_by="light",
    ),
    Case(
        name="the light scorer sees how the candidates match what was taken just now",
        decides="matches",
        user="u7",
        asks={"context": {"recent_items": ["i17"]}},
        broken=("ranker", "network"),
        decided_by="light",
    ),
    Case(
        name="where the light scorer's ten best stand far above the rest nobody refines their order",
        decides="light",
        user="u7",
        light=(40.0, 20.0, 4.0),
        settled_by="light",
        decided_by="light",
    ),
    Case(name="the network decides a known user's list", decides="network", user="u7", decided_by="network"),
    Case(
        name="the ranker decides where the network is away",
        decides="ranker",
        user="u7",
        broken=("network",),
        decided_by="ranker",
    ),
    Case(
        name="the ranker has nothing to go by without features",
        decides="features",
        user="u7",
        broken=("network",),
        decided_by="ranker",
    ),
    Case(
        name="an item that is boosted tenfold goes from place six to the top",
        decides="boost",
        user="u7",
        asks={"n": 10, "rules": {"boost_items": {"i222": 10.0}}},
        broken=("light", "ranker", "network"),
        first=("i222", "i187"),
    ),
    Case(
        name="a genre that is boosted tenfold goes before those that are not",
        decides="boost",
        asks={"n": 6, "rules": {"boost_categories": {"Music": 10.0}}},
        trending=_MIXED,
        first=("i15", "i18"),
    ),
    Case(
        name="a long list is filled up with nothing consumed long ago",
        decides="older_consumed",
        user="u7",
        asks={"n": 290},
        hides=("i262", "i141", "i37"),
        count=271,
    ),
    Case(
        name="a list longer than the candidates is filled up to its length",
        decides="backfill",
        user="u7",
        asks={"n": 150},
        brings="backfill",
        count=150,
    ),
    Case(
        name="of one genre at most half of the list is shown",
        decides="diversity",
        asks={"n": 4},
        trending=_MIXED,
        rule_off=PinsSelector(DiversitySelector(genre_share_fraction=1.0, creator_share_fraction=0.25)),
        first=("i5", "i10", "i6", "i12"),
    ),
    Case(
        name="by one creator at most a quarter of the list is shown",
        decides="diversity",
        asks={"n": 4},
        trending=_ONE_STUDIO,
        rule_off=PinsSelector(DiversitySelector(genre_share_fraction=0.5, creator_share_fraction=1.0)),
        hides=("i1",),
    ),
    Case(
        name="what is pinned stands at its place, whatever is capped",
        decides="diversity",
        asks={"n": 4, "rules": {"pin": {"i15": 1}}},
        trending=_MIXED,
        rule_off=DiversitySelector(genre_share_fraction=0.5, creator_share_fraction=0.25),
        first=("i15",),
    ),
    Case(
        name="without the rule of diversity the best n are shown",
        decides="top",
        asks={"n": 4},
        trending=_MIXED,
        broken=("diversity",),
        first=("i5", "i10", "i15", "i6"),
        count=4,
    ),
)
