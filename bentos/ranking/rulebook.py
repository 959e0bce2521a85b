"""rulebook: a request's business rules in terms of one snapshot: what is denied and why, what is boosted, what is pinned where."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bentos.ranking.new_items import FeedBoard
from bentos.ranking.pinned_labels import Labels
from bentos.ranking.schema_rules import BusinessRules
from infra.contracts.candidates import Int32s
from infra.contracts.errors import InvalidRequest

_LOOK_AT = 4096
"""Items of the catalogue between two turns of the others: 0.1 ms, and 0.4 ms where a request names hundreds."""

_NO_NAMES: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rulebook:
    """allow: where it is empty, all genres. boost_items, pins: by item index; places count from 1."""

    allow: frozenset[str] = _NO_NAMES
    deny: frozenset[str] = _NO_NAMES
    deny_creators: frozenset[str] = _NO_NAMES
    boost_categories: Mapping[str, float] = field(default_factory=dict)
    boost_items: Mapping[int, float] = field(default_factory=dict)
    pins: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, rules: BusinessRules, index_of: Callable[[str], int | None]) -> Rulebook:
        """index_of: an item's index; None for one that the request's catalogue has not: nothing can be ruled of it."""
        boosts = ((index_of(item_id), factor) for item_id, factor in rules.boost_items.items())
        pins = ((index_of(item_id), place) for item_id, place in rules.pin.items())
        return cls(
            allow=frozenset(rules.allow_categories),
            deny=frozenset(rules.deny_categories),
            deny_creators=frozenset(rules.deny_creators),
            boost_categories=rules.boost_categories,
            boost_items={item: factor for item, factor in boosts if item is not None},
            pins={item: place for item, place in pins if item is not None},
        )

    @property
    def denies(self) -> bool:
        """Whether it may take an item out."""
        return bool(self.allow or self.deny or self.deny_creators)

    @property
    def boosts(self) -> bool:
        """Whether it may move an item."""
        return bool(self.boost_categories or self.boost_items)

    def denied(self, labels: Labels, faces: Int32s) -> list[tuple[NDArray[np.bool_], str]]:
        """bool [len(faces)] a reason: which of them go for it. faces: the rows that say what the items are called by now."""
        found: list[tuple[NDArray[np.bool_], str]] = []
        if self.allow:
            found.append((~labels.in_genres(faces, self.allow), "of no category that the request allows"))
        if self.deny:
            found.append((labels.in_genres(faces, self.deny), "of a category that the request denies"))
        if self.deny_creators:
            found.append((labels.by_creators(faces, self.deny_creators), "by a creator whom the request denies"))
        return found

    def factors(self, labels: Labels, ids: Int32s, faces: Int32s) -> NDArray[np.float64]:
        """float64 [len(ids)]: the product of all that apply, 1 where none does. faces: see `denied`."""
        factors = np.ones(len(ids))
        if self.boost_items:
            named = np.isin(ids, np.fromiter(self.boost_items, np.int32))
            factors[named] = [self.boost_items[item] for item in ids[named].tolist()]
        if self.boost_categories:
            labels.multiply(factors, faces, self.boost_categories)
        return factors

    async def first_allowed(self, labels: Labels, board: FeedBoard, ids: Int32s, n: int) -> Int32s:
        """The first n of them that are not denied, in order, by rules of which some deny; lets others run meanwhile."""
        found: list[Int32s] = [ids[:0]]
        for start in range(0, len(ids) if n > 0 else 0, _LOOK_AT):
            part = ids[start : start + _LOOK_AT]
            gone = np.logical_or.reduce([rows for rows, _ in self.denied(labels, board.faces_of(part))])
            found.append(part[~gone][:n])
            n -= len(found[-1])
            if n <= 0:
                break
            await asyncio.sleep(0)
        return np.concatenate(found)


NO_RULES = Rulebook()


def check_pins(rules: BusinessRules, *, n: int) -> None:
    """Raises InvalidRequest where a place is beyond the list, or taken twice."""
    taken: dict[int, str] = {}
    for item_id, place in rules.pin.items():
        if place > n:
            raise InvalidRequest(f"rules.pin: {item_id[:40]!r} is at place {place}; wanted 1 to n, which is {n}.")
        if place in taken:
            raise InvalidRequest(
                f"rules.pin: {taken[place][:40]!r} and {item_id[:40]!r} are both at place {place}; wanted each place once."
            )
        taken[place] = item_id
