"""new_items: rows behind a snapshot's own items for what is newer, and the stream's board in item indices."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from bentos.ranking.changes import Card, ChangedItems
from infra.catalog.features.ranking import ItemColumns
from infra.contracts.candidates import Int32s
from infra.contracts.errors import ContractViolation
from infra.nearline.boards import NO_BOARD, Board
from infra.resilience.complaints import Complaints
from infra.snapshots.tables import ItemTable

_log = logging.getLogger("headgate.new_items")

SPARE = 8192
"""Rows a snapshot for new items, and for items of which something else is said: 2.4 MB. One that no board in use names is given out
again."""

MOST_CHANGED = 3584
"""Items a board that go by what was said of them since the batch; of more, the rest wait for the next snapshot. With the new ones,
at most some 450, they take less than half of the rows: while one board is in use there is room for another."""

_NO_ITEMS = np.empty(0, np.int32)
_NO_VALUES = np.empty(0, np.int64)


def no_board() -> Board:
    """Where nobody reads any."""
    return NO_BOARD


class NoSpareRow(ContractViolation):
    """All rows are named by boards in use."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class FeedBoard:
    """A board as the requests of one snapshot use it.

    trending: int32 [t], item indices, most taken first, trending_counts: int64 [t]. newest: int32 [m], items that the snapshot
    has not, newest first, newest_ms: int64 [m], when each came. rows: the new items on this board, by id: whatever else is new
    does not exist for the request, so that the board alone decides what an id means. unavailable, faces: see Changes.
    """

    source: Board = NO_BOARD
    trending: Int32s = field(default_factory=_NO_ITEMS.copy)
    trending_counts: NDArray[np.int64] = field(default_factory=_NO_VALUES.copy)
    newest: Int32s = field(default_factory=_NO_ITEMS.copy)
    newest_ms: NDArray[np.int64] = field(default_factory=_NO_VALUES.copy)
    rows: dict[str, int] = field(default_factory=dict)
    unavailable: NDArray[np.bool_] | None = None
    faces: Int32s | None = None

    def available(self, ids: Int32s) -> NDArray[np.bool_]:
        """bool [len(ids)]: which of the items are to be had."""
        return np.ones(len(ids), np.bool_) if self.unavailable is None else ~self.unavailable[ids]

    def faces_of(self, ids: Int32s) -> Int32s:
        """int32 [len(ids)]: the rows of the item table that say what the items are called by now, and by whom they are."""
        return ids if self.faces is None else self.faces[ids]

    def face(self, index: int) -> int:
        """The same of one item."""
        return index if self.faces is None else int(self.faces[index])


NO_FEED_BOARD = FeedBoard()


def with_spare_rows(items: ItemTable) -> ItemTable:
    """The table with SPARE rows behind: no title, no genres, no creator, features NaN."""
    columns = items.columns
    nothing = np.full((SPARE, columns.features.shape[1]), np.nan, np.float32)
    return replace(
        items,
        item_ids=items.item_ids + [""] * SPARE,
        titles=items.titles + [""] * SPARE,
        genres=items.genres + [[] for _ in range(SPARE)],
        creators=items.creators + [None] * SPARE,
        columns=ItemColumns(
            np.concatenate([columns.features, nothing]),
            np.concatenate([columns.genres, np.zeros((SPARE, columns.genres.shape[1]), np.float32)]),
            np.concatenate([columns.creators, np.full(SPARE, -1, np.int32)]),
        ),
    )


class Shelf:
    """Gives the spare rows of one pinned snapshot out. A row stays as it is while a board that names it is in use: an item of which
    something else is said gets another one, and a request goes on with the row that its board names."""

    def __init__(
        self,
        items: ItemTable,
        item_genres: list[tuple[int, ...]],
        genre_numbers: dict[str, int],
        boards: Callable[[], Board],
    ) -> None:
        """items, item_genres: as RankingContent has them, with their spare rows. boards: the newest board."""
        self._items = items
        self._item_genres = item_genres
        self._genre_numbers = genre_numbers
        self._boards = boards
        self._free = list(range(len(items.item_ids) - SPARE, len(items.item_ids)))[::-1]
        self._rows: dict[Card, int] = {}
        self._in_use: list[tuple[ref[FeedBoard], frozenset[int]]] = []
        self._forget: list[Callable[[Sequence[int]], None]] = []
        self._genre_columns = {name: at for at, name in enumerate(items.genre_names)}
        known = zip(items.creators, items.columns.creators.tolist(), strict=True)
        self._creator_numbers = {name: number for name, number in known if name}
        self._current = NO_FEED_BOARD
        self._seen = NO_BOARD
        self._changed = ChangedItems(items, most=MOST_CHANGED)
        self._complaints = Complaints(_log)

    def tell(self, forget: Callable[[Sequence[int]], None]) -> None:
        """Let it be called with the rows that are to be given out again. It must not hold this shelf: see `load_content`."""
        self._forget.append(forget)

    def current(self) -> FeedBoard:
        """The newest board; the one before where there is no room for it: an answer goes by all that its board says, or by an
        earlier board, and logs which."""
        board = self._boards()
        if board is not self._seen:
            self._seen = board
            try:
                self._current = self.place(board)
            except NoSpareRow as error:
                self._complaints.note("full", str(error))
        return self._current

    def place(self, board: Board) -> FeedBoard:
        """The board in item indices. Items that neither the snapshot has nor the stream names with a title are left out.

        Raises NoSpareRow.
        """
        rows: dict[str, int] = {}
        own = set(self._changed.rows.values())
        row_of = partial(self._row, own)
        for item_id, about in board.about.items():
            title, creator, genres = (_text(about.get(name)) for name in ("title", "creator", "genres"))
            card = Card(item_id, title, creator, genres).changed(board.standing)
            if card.title and item_id not in self._items.index_of:
                rows[item_id] = row_of(card)
        trending = self._placed(board.list("trending_clicks"), rows)
        new = [(item_id, at_ms) for item_id, at_ms in board.list("newest_items") if item_id in rows]
        newest = self._placed(new, rows)
        changes = self._changed.place(board, row_of)
        if self._changed.too_many:
            told = f"{self._changed.too_many} changed items go by their old names: {MOST_CHANGED} have room"
            self._complaints.note("too many", f"{told}, the others wait for a snapshot")
        unavailable = changes.unavailable_with(rows)
        placed = FeedBoard(board, *_columns(trending), *_columns(newest), rows, unavailable, changes.faces)
        self._in_use = [(it, named) for it, named in self._in_use if it() is not None]
        self._in_use.append((ref(placed), changes.rows.union(rows.values())))
        return placed

    def _placed(self, pairs: Iterable[tuple[str, int]], rows: dict[str, int]) -> list[tuple[int, int]]:
        found = ((self._items.index_of.get(item_id, rows.get(item_id)), value) for item_id, value in pairs)
        return [(row, value) for row, value in found if row is not None]

    def _row(self, wanted: set[int], card: Card) -> int:
        """The row that has such a card. wanted: rows of the board that is being placed, and this one from now on."""
        row = self._rows.get(card)
        if row is None:
            if not self._free:
                self._reclaim(wanted)
            if not self._free:
                raise NoSpareRow(f"All {SPARE} rows for new and changed items are named by boards in use.")
            row = self._rows[card] = self._free.pop()
            self._write(row, card)
        wanted.add(row)
        return row

    def _reclaim(self, wanted: set[int]) -> None:
        """Take back what neither a board in use names nor the one that is being placed."""
        used = wanted.union(*(named for board, named in self._in_use if board() is not None))
        unused = {card: row for card, row in self._rows.items() if row not in used}
        for card in unused:
            del self._rows[card]
        self._free = list(unused.values())
        for forget in self._forget:
            forget(self._free)

    def _write(self, row: int, card: Card) -> None:
        items, names = self._items, list(dict.fromkeys(name for name in card.genres.split("|") if name))
        items.item_ids[row], items.titles[row], items.genres[row] = card.item_id, card.title, names
        items.creators[row] = card.creator or None
        items.columns.creators[row] = self._creator_numbers.get(card.creator, -1)
        known = [self._genre_columns[name] for name in names if name in self._genre_columns]
        items.columns.genres[row] = 0
        if known:
            items.columns.genres[row, known] = 1 / np.sqrt(len(known))
        numbers = self._genre_numbers
        self._item_genres[row] = tuple(numbers.setdefault(name, len(numbers)) for name in names)


def _text(value: object) -> str:
    """A LAST feature of one text, or nothing."""
    return str(value[0]) if isinstance(value, tuple) and value else ""


def _columns(pairs: list[tuple[int, int]]) -> tuple[Int32s, NDArray[np.int64]]:
    rows = np.array([row for row, _ in pairs], np.int32)
    return rows, np.array([value for _, value in pairs], np.int64)
