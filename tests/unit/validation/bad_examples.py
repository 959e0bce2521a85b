"""bad_examples: for every check, snapshots that it must find fault with, each broken in exactly one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from infra.catalog.features.ranking import NETWORK_FEATURES
from tests.fixtures.tiny_snapshot import tiny_network, tiny_ranker
from tests.unit.validation.spoilings import (
    INFINITE,
    add_stranger,
    break_a_tie,
    consume_twice,
    cut_an_item_in_two,
    drop_a_file,
    drop_a_part,
    drop_user,
    edit_popular,
    empty,
    first_score,
    flip_a_byte,
    forget_a_chunk,
    forget_an_item,
    infinite_feature,
    infinite_item_feature,
    invent_a_consumed_item,
    last_score,
    lengthen,
    lose_a_feature,
    lose_a_score,
    more_rows_promised,
    narrow_item_vectors,
    negative_item,
    not_parquet,
    null_item_feature,
    nullable_candidates,
    offer_the_worst,
    offer_what_was_consumed,
    other_scale,
    popular_row,
    ranker,
    ranker_metrics,
    remember_too_much,
    rename_feature_column,
    rename_items,
    repeat_item,
    repeat_item_id,
    repeat_user,
    row,
    rows,
    scale_vectors,
    share_a_name,
    shift_item_index,
    shorten,
    shuffle_item_names,
    swap_model_features,
    swap_names,
    swap_neighbours,
    swap_user_features,
    two_features,
    unknown_history,
    unknown_item,
    without_chunks,
    without_list,
)
from tests.unit.validation.workbench import Workbench, with_leaves
from validation.check import Status


@dataclass(frozen=True)
class BadExample:
    """spoil: the one thing that is wrong. says: words of the check's own finding. companions: checks that cannot but fail too,
    and why. example: words of an example that the finding must give, empty where none can be."""

    check: str
    name: str
    spoil: Callable[[Workbench], object]
    says: str
    example: str = ""
    companions: tuple[str, ...] = ()
    status: Status = Status.FAILED

    def __str__(self) -> str:
        return f"{self.check}-{self.name}".replace(" ", "-")


NO_MAP = ("score_map",)  # what is not the map of an inner product is also not that


BAD_EXAMPLES = (
    BadExample("integrity", "changed byte", flip_a_byte, "1 that is not so", "has digest"),
    BadExample("integrity", "missing file", drop_a_file, "1 that is not so", "is missing"),
    BadExample("integrity", "missing part", drop_a_part, "1 that is not so", "no part 'popular'"),
    BadExample("integrity", "not Parquet", not_parquet, "not so", "is not Parquet"),
    BadExample("integrity", "fewer rows than promised", more_rows_promised, "not so", "has 600 rows, promised 601"),
    BadExample(
        "integrity", "missing column", rename_feature_column, "not so", "no column item_trend_log, wanted numbers"
    ),
    BadExample(
        "integrity",
        "nullable column",
        nullable_candidates,
        "not so",
        "column user_index is int32, wanted int32 not null",
    ),
    BadExample("integrity", "repeated item id", repeat_item_id, "not so", "1 rows of the item table repeat"),
    BadExample("integrity", "gap in the item index", shift_item_index, "not so", "indexes are not 0 to 299"),
    BadExample(
        "integrity", "null feature", null_item_feature, "not so", "item_mean_value of the item table has 1 nulls"
    ),
    BadExample(
        "integrity",
        "infinite feature",
        infinite_item_feature,
        "not so",
        "item_mean_value of the item table has 300 infinite",
    ),
    BadExample(
        "integrity",
        "other definition",
        lambda bench: bench.reseal(definition_hash="0" * 16),
        "not so",
        "definition_hash is 000",
    ),
    BadExample(
        "integrity",
        "another version's manifest",
        lambda bench: bench.reseal(version="v7"),
        "not so",
        "the manifest is of ranking/v7, here ranking/v2",
    ),
    BadExample("integrity", "no digests of records", without_chunks, "1 that is not so", "no part 'chunks'"),
    BadExample("integrity", "users without a digest", forget_a_chunk, "not so", "1 chunks of records are not those"),
    BadExample(
        "integrity",
        "other root",
        lambda bench: bench.reseal(records_root="0" * 64),
        "not so",
        "its manifest promises 000000000000",
    ),
    BadExample("integrity", "other order of features", swap_user_features, "not so", "the order of user features is"),
    BadExample(
        "integrity", "score map without a scale", lambda bench: bench.reseal(score_scale=0.0), "not so", "scale is 0.0"
    ),
    BadExample(
        "coverage", "missing user", rows(drop_user), "1 of 120 users have no list", "user 'u3' (index 3): no list"
    ),
    BadExample("coverage", "user twice", rows(repeat_user), "no list or more than one", "user 'u3' (index 3): 2 lists"),
    BadExample(
        "coverage", "user without events", rows(add_stranger), "1 of 121 users have a list and no event", "'stranger'"
    ),
    BadExample(
        "coverage", "swapped names", rows(swap_names), "2 of 120 users have their list under an id", "'u4' (index 3)"
    ),
    BadExample("coverage", "shared name", rows(share_a_name), "not theirs alone", "'u4' (index 3)"),
    BadExample(
        "record_shape", "score lost", row(lose_a_score), "1 of 120 users have a record that is cut short", "'u7'"
    ),
    BadExample("record_shape", "item cut in two", row(cut_an_item_in_two), "cut short", "1 of 5 packed values"),
    BadExample("record_shape", "feature lost", row(lose_a_feature), "cut short", "'u7' (index 7)"),
    BadExample("record_shape", "history too long", row(remember_too_much), "cut short", "'u7' (index 7)"),
    BadExample(
        "length", "shortened list", row(shorten), "1 of 120 users have a list of another length", "99 items, wanted 100"
    ),
    BadExample("length", "empty list", row(empty), "another length", "'u7' (index 7): 0 items"),
    BadExample("length", "list too long", lengthen, "another length", "101 items, wanted 100"),
    BadExample(
        "duplicates",
        "item twice",
        row(repeat_item),
        "1 of 120 users have an item more than once",
        "'u7' (index 7): 1 repeated",
    ),
    BadExample(
        "catalogue",
        "unknown item",
        row(unknown_item),
        "candidates outside the catalogue",
        "'u7' (index 7): 1 unknown",
        NO_MAP,
    ),
    BadExample("catalogue", "negative index", row(negative_item), "outside the catalogue", "1 unknown items", NO_MAP),
    BadExample(
        "catalogue",
        "unknown history",
        row(unknown_history),
        "history outside the catalogue",
        "1 unknown items of history",
    ),
    BadExample(
        "unseen", "consumed item", offer_what_was_consumed, "1 of 120 users are shown what", "1 items consumed before"
    ),
    BadExample(
        "consumed",
        "forgotten item",
        row(forget_an_item),
        "1 of 120 users have other consumed",
        "'u7' (index 7): 1 items",
    ),
    BadExample("consumed", "invented item", row(invent_a_consumed_item), "other consumed items", "1 items missing"),
    BadExample(
        "consumed", "item twice", row(consume_twice), "other consumed items", "1 items missing, too many or twice"
    ),
    BadExample(
        "finite_scores",
        "NaN last",
        last_score(float("nan")),
        "1 of 120 users have a NaN score",
        "'u7' (index 7): 1 NaN",
        NO_MAP,
    ),
    BadExample("finite_scores", "NaN first", first_score(float("nan")), "have a NaN score", "1 NaN", NO_MAP),
    BadExample("finite_scores", "infinite", first_score(INFINITE), "have an infinite score", "1 infinite", NO_MAP),
    BadExample(
        "finite_scores",
        "infinite feature",
        row(infinite_feature),
        "an infinite feature",
        "1 infinite features",
    ),
    BadExample(
        "score_range",
        "negative score",
        last_score(-0.5),
        "1 of 120 users have a negative score",
        "'u7' (index 7): 1 negative",
        NO_MAP,
    ),
    BadExample(
        "score_order",
        "rising score",
        row(swap_neighbours),
        "1 of 120 users have a list out of order",
        "'u7' (index 7): 1 places",
    ),
    BadExample("score_order", "tie the wrong way round", break_a_tie, "out of order", "1 places"),
    BadExample(
        "score_map",
        "another scale",
        row(other_scale),
        "100 other scores in the lists of 1 of 120 sampled users",
        "'u7' (index 7): 100 scores",
    ),
    BadExample("recall", "the worst items", offer_the_worst(0.5), "recall@100", "user 'u", ("score_distribution",)),
    BadExample("recall", "a few bad lists", offer_the_worst(0.05), "recall@100", "user 'u", status=Status.WARNED),
    BadExample(
        "recall",
        "user without a vector",
        lambda bench: bench.drop_user_vector(7),
        "1 of 120 sampled users have no vector",
        "'u7'",
        NO_MAP,
    ),
    BadExample("recall", "vectors of another width", narrow_item_vectors, "recall@100 0.0000", "0.000", NO_MAP),
    BadExample("popular", "no popular list", edit_popular(without_list("popular")), "0 popular items"),
    BadExample(
        "popular", "no trending list", edit_popular(without_list("trending")), "0 trending items", status=Status.WARNED
    ),
    BadExample(
        "popular",
        "item twice",
        edit_popular(lambda found: [found[1], *found[1:]]),
        "300 popular items, 1 of them repeated",
    ),
    BadExample("popular", "unknown item", edit_popular(popular_row(item_index=300)), "1 of them repeated, unknown"),
    BadExample("popular", "NaN score", edit_popular(popular_row(score=float("nan"))), "without a finite score"),
    BadExample("score_distribution", "another magnitude", scale_vectors(8.0), "PSI"),
    BadExample("score_distribution", "a shift", scale_vectors(1.6), "PSI", status=Status.WARNED),
    BadExample("overlap", "no item in common", rename_items, "mean Jaccard of the first 100 0.000", "user 'u"),
    BadExample("overlap", "other recommendations", shuffle_item_names, "mean Jaccard", "user 'u", status=Status.WARNED),
    BadExample("ranker_model", "broken file", ranker(lambda model: model[: len(model) // 2]), "does not load"),
    BadExample("ranker_model", "no model at all", ranker(lambda model: b"\x00not a model"), "does not load"),
    BadExample(
        "ranker_model",
        "NaN scores",
        ranker(lambda model: with_leaves(model, float("nan"))),
        "32 of 32 sampled lists",
        "user 'u",
    ),
    BadExample(
        "ranker_model",
        "one score for all",
        ranker(lambda model: with_leaves(model, 0.25)),
        "one score for all items in 32",
        status=Status.WARNED,
    ),
    BadExample("ranker_model", "other features", ranker(two_features), "it takes 2 features"),
    BadExample(
        "ranker_model", "features swapped", ranker(swap_model_features), "its feature 0 is 'user_recent_activity_log'"
    ),
    BadExample("ranker_model", "other trees", ranker(lambda model: tiny_ranker(trees=3)), "it has 3 trees"),
    BadExample(
        "network_model",
        "no network",
        lambda bench: bench.edit_network(lambda model: b"a network"),
        "The network cannot be read",
    ),
    BadExample(
        "network_model",
        "fewer inputs",
        lambda bench: bench.edit_network(lambda model: tiny_network(inputs=5)),
        "wanted one tensor(float) [n, 37]",
    ),
    BadExample(
        "network_model",
        "scores not finite",
        lambda bench: bench.edit_network(lambda model: tiny_network(gain=INFINITE)),
        "32 of 32 sampled lists",
        example="user 'u",
    ),
    BadExample(
        "network_model",
        "inputs swapped",
        lambda bench: bench.edit_stage("network", inputs=NETWORK_FEATURES[::-1]),
        "some are not this code's",
    ),
    BadExample(
        "network_model",
        "no light scorer",
        lambda bench: bench.edit_stage("light", weights=()),
        "the light scorer, whose score it takes, is not there",
    ),
    BadExample(
        "ranker_quality",
        "worse than retrieval",
        ranker_metrics(0.05, 0.1),
        "ndcg@10 0.0500 ranked",
        status=Status.WARNED,
    ),
    BadExample("ranker_quality", "no figures", ranker_metrics(None, 0.1), "no ndcg@10 of ranker", status=Status.WARNED),
)
