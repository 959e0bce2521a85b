"""changes: what stands in the stream against a snapshot's items: which are not available, and what others are called by now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.contracts.candidates import Int32s
from infra.nearline.boards import NO_BOARD, Board, Standing
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
    each item's title, creator and genres are written: its own row, or a spare one; None: nothing changed. rows: the spare ones.
    """

    unavailable: NDArray[np.bool_] | None = None
    faces: Int32s | None = None
    strangers: frozenset[str] = frozenset()
    rows: frozenset[int] = frozenset()

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
    """Follows what stands from board to board: each costs as much as it changes, not as much as stands.

    rows: the spare row of each item that goes by what was said of it, by item index. too_many: items that do not, for want of room.
    """

    def __init__(self, items: ItemTable, *, most: int) -> None:
        """items: with the spare rows. most: how many items may go by what was said of them. Of more the first by id do, in whatever
        order it was said, so that a replay shows the same."""
        self._items = items
        self._most = most
        self._board = NO_BOARD
        self._gone = np.zeros(len(items.item_ids), np.bool_)
        self._strangers: frozenset[str] = frozenset()
        self._cards: dict[int, Card] = {}
        self._current: Changes | None = NO_CHANGES
        self.rows: dict[int, int] = {}

    @property
    def too_many(self) -> int:
        """See above."""
        return max(0, len(self._cards) - self._most)

    def place(self, board: Board, row_of: Callable[[Card], int]) -> Changes:
        """What stands on the board, in item indices. row_of: the row that has such a card; where it raises, so does this, and the
        next board is placed none the less."""
        if self._current is None or board.standing is not self._board.standing:
            self._current = None
            said = sorted(board.said_since(self._board))
            self._board = board
            self._hide(said)
            self._rename(said)
            self._write(row_of)
            gone = self._gone if board.standing.get(UNAVAILABLE) else None
            self._current = Changes(gone, self._faces(), self._strangers, frozenset(self.rows.values()))
        return self._current

    def _hide(self, said: list[str]) -> None:
        gone, index_of = self._board.standing.get(UNAVAILABLE, _NOTHING), self._items.index_of
        unavailable, strangers = self._gone.copy(), set(self._strangers)
        for item_id in said:
            at = index_of.get(item_id)
            if at is not None:
                unavailable[at] = item_id in gone
            elif item_id in gone:
                strangers.add(item_id)
            else:
                strangers.discard(item_id)
        self._gone, self._strangers = unavailable, frozenset(strangers)

    def _rename(self, said: list[str]) -> None:
        items, renamed = self._items, [self._board.standing.get(f"changed_{name}", _NOTHING) for name in ATTRIBUTES]
        for item_id in said:
            at = items.index_of.get(item_id)
            if at is None or (at not in self._cards and not any(item_id in names for names in renamed)):
                continue
            was = Card(item_id, items.titles[at], items.creators[at] or "", "|".join(items.genres[at]))
            now = was.changed(self._board.standing)
            if now == self._cards.get(at, was):
                continue
            self.rows.pop(at, None)
            if now == was:
                del self._cards[at]
            else:
                self._cards[at] = now

    def _write(self, row_of: Callable[[Card], int]) -> None:
        chosen = set(self._cards)
        if self.too_many:
            chosen = set(sorted(self._cards, key=lambda at: self._cards[at].item_id)[: self._most])
            self.rows = {at: row for at, row in self.rows.items() if at in chosen}
        for at in chosen - self.rows.keys():
            self.rows[at] = row_of(self._cards[at])

    def _faces(self) -> Int32s | None:
        if not self.rows:
            return None
        faces = np.arange(len(self._items.item_ids), dtype=np.int32)
        faces[list(self.rows)] = list(self.rows.values())
        return faces
