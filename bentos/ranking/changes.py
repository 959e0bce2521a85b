"""changes: what stands in the stream against a snapshot's items: which are not available, and what others are called by now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.contracts.candidates import Int32s
from infra.nearline.boards import Standing
from infra.snapshots.tables import ItemTable

UNAVAILABLE = "unavailable"
ATTRIBUTES = ("title", "creator", "genres")

_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Card:
    """What is said of an item; empty where nothing is. genres: with | between."""

    item_id: str
    title: str
    creator: str
    genres: str

    def changed(self, standing: Standing) -> Card:
        """With what was said since."""
        own = (self.title, self.creator, self.genres)
        said = (standing.get(f"changed_{name}", _NOTHING).get(self.item_id) for name in ATTRIBUTES)
        return Card(self.item_id, *(new or old for new, old in zip(said, own, strict=True)))


@dataclass(frozen=True, slots=True)
class Changes:
    """What stands, in item indices. strangers: unavailable items that the snapshot has not.

    unavailable: bool [rows of the item table], None where all items are available. faces: int32 [rows of the item table], where
    each item's title, creator and genres are written: its own row, or a spare one; None where nothing changed.
    """

    unavailable: NDArray[np.bool_] | None = None
    faces: Int32s | None = None
    strangers: frozenset[str] = frozenset()

    def unavailable_with(self, rows: Mapping[str, int]) -> NDArray[np.bool_] | None:
        """The same of new items too, which stand in those rows."""
        gone = [row for item_id, row in rows.items() if item_id in self.strangers]
        if self.unavailable is None or not gone:
            return self.unavailable
        unavailable = self.unavailable.copy()
        unavailable[gone] = True
        return unavailable


NO_CHANGES = Changes()


class ChangedItems:
    """Follows what stands from board to board: each costs as much as it changes, not as much as stands."""

    def __init__(self, items: ItemTable, row_of: Callable[[Card], int | None]) -> None:
        """items: with the spare rows; row_of: the row that has such a card; None where none is free: then the own one stays."""
        self._items = items
        self._row_of = row_of
        self._standing: Standing = {}
        self._current = NO_CHANGES

    def place(self, standing: Standing) -> Changes:
        """It in item indices."""
        if standing is not self._standing:
            unavailable, strangers = self._unavailable(standing)
            self._current = Changes(unavailable, self._faces(standing), strangers)
            self._standing = standing
        return self._current

    def _said_anew(self, standing: Standing, *features: str) -> list[str]:
        pairs = ((standing.get(name, _NOTHING), self._standing.get(name, _NOTHING)) for name in features)
        return sorted({item_id for now, before in pairs for item_id, _ in now.items() ^ before.items()})

    def _unavailable(self, standing: Standing) -> tuple[NDArray[np.bool_] | None, frozenset[str]]:
        index_of, gone = self._items.index_of, standing.get(UNAVAILABLE, _NOTHING)
        before = self._current.unavailable
        unavailable = np.zeros(len(self._items.item_ids), np.bool_) if before is None else before.copy()
        strangers = set(self._current.strangers)
        for item_id in self._said_anew(standing, UNAVAILABLE):
            at = index_of.get(item_id)
            if at is not None:
                unavailable[at] = item_id in gone
            elif item_id in gone:
                strangers.add(item_id)
            else:
                strangers.discard(item_id)
        return unavailable if gone else None, frozenset(strangers)

    def _faces(self, standing: Standing) -> Int32s | None:
        items, own = self._items, np.arange(len(self._items.item_ids), dtype=np.int32)
        faces = own.copy() if self._current.faces is None else self._current.faces.copy()
        for item_id in self._said_anew(standing, *(f"changed_{name}" for name in ATTRIBUTES)):
            at = items.index_of.get(item_id)
            if at is not None:
                was = Card(item_id, items.titles[at], items.creators[at] or "", "|".join(items.genres[at]))
                now = was.changed(standing)
                row = self._row_of(now) if now != was else None
                faces[at] = at if row is None else row
        return faces if np.any(faces != own) else None
