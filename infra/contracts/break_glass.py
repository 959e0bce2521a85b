"""break_glass: which failed checks a person may answer for, and how much the person must say."""

from __future__ import annotations

PASSABLE: dict[str, str] = {
    "coverage": "users without a list of their own get the popular one",
    "length": "shorter lists are filled up with popular items",
    "unseen": "lists hold what their users know already",
    "consumed": "lists that are filled up may bring back what their users know already",
    "score_map": "scores are not comparable with those of another snapshot",
    "recall": "lists lack items that exact search would have found",
    "score_distribution": "scores are spread unlike those of the live snapshot",
    "overlap": "users see other lists than they are used to",
    "ranker_quality": "the ranker orders no better than retrieval",
}
"""Failed checks past which a snapshot can still be served, and what its users would notice. A check that is not here (digests of
files, records that cannot be unpacked, items outside the catalogue, scores that are no numbers, a ranker that cannot score, no list
for strangers) is never passed, nor is one that was added without a decision."""

REASON_AT_LEAST = 20
"""Characters of the reason for a promotion past failed checks."""
