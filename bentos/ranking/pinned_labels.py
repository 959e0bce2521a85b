"""pinned_labels: the genres and the creator of each row of a pinned snapshot's item table as arrays, for rules about many items."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from bentos.ranking.new_items import Shelf
from infra.contracts.candidates import Int32s
from infra.snapshots.tables import ItemTable

if TYPE_CHECKING:
    from bentos.ranking.content import RankingContent

_UNKNOWN = -1

_ROOM = 8
"""One part in so many more than is needed, so that not each changed item has the genres of all copied."""


class Labels:
    """Of all rows; a spare one is taken in when somebody first asks for it, and anew once some were given out again.

    A genre counts once an item, however often the item names it.
    """

    def __init__(self, items: ItemTable, *, n_items: int) -> None:
        """items: with their spare rows, of which the first n_items are not."""
        self._items = items
        self._genre_numbers: dict[str, int] = {}
        self._creator_numbers: dict[str, int] = {}
        rows = len(items.item_ids)
        self._starts = np.zeros(rows, np.int64)
        self._counts = np.full(rows, _UNKNOWN, np.int32)
        self._creators = np.full(rows, _UNKNOWN, np.int32)
        self._genres, self._used = np.empty(0, np.int32), 0
        self._take_in(range(n_items))
        self._n_items, self._used_by_own = n_items, self._used

    def in_genres(self, rows: Int32s, names: Collection[str]) -> NDArray[np.bool_]:
        """bool [len(rows)]: which of them have at least one of those genres."""
        owners, genres = self._genres_of(rows)
        found = np.zeros(len(rows), np.bool_)
        found[owners[_wanted(self._genre_numbers, names)[genres]]] = True
        return found

    def by_creators(self, rows: Int32s, names: Collection[str]) -> NDArray[np.bool_]:
        """bool [len(rows)]: which of them are by one of those."""
        self._know(rows)
        return _wanted(self._creator_numbers, names)[self._creators[rows]]

    def multiply(self, factors: NDArray[np.float64], rows: Int32s, by_genre: Mapping[str, float]) -> None:
        """Multiply each row's factor by those of its genres, in the order in which it names them. factors: [len(rows)]."""
        owners, genres = self._genres_of(rows)
        factor_of = np.ones(len(self._genre_numbers))
        for name, factor in by_genre.items():
            if name in self._genre_numbers:
                factor_of[self._genre_numbers[name]] = factor
        np.multiply.at(factors, owners, factor_of[genres])

    def forget(self, rows: Sequence[int]) -> None:
        """These spare rows are given out again. All spare ones are forgotten with them, so that nothing piles up."""
        if len(rows):
            self._counts[self._n_items :] = self._creators[self._n_items :] = _UNKNOWN
            self._used = self._used_by_own

    def _genres_of(self, rows: Int32s) -> tuple[NDArray[np.intp], Int32s]:
        """Each genre of each row: the position among the rows, rising, and the genre's number."""
        self._know(rows)
        counts = self._counts[rows]
        owners = np.repeat(np.arange(len(rows)), counts)
        before = np.cumsum(counts) - counts
        return owners, self._genres[np.arange(len(owners)) + np.repeat(self._starts[rows] - before, counts)]

    def _know(self, rows: Int32s) -> None:
        unknown = rows[self._counts[rows] == _UNKNOWN]
        if len(unknown):
            self._take_in(dict.fromkeys(unknown.tolist()))

    def _take_in(self, rows: Collection[int]) -> None:
        items, genres, creators = self._items, self._genre_numbers, self._creator_numbers
        names = [dict.fromkeys(items.genres[row]) for row in rows]
        at, counts = np.fromiter(rows, np.int64, len(rows)), np.fromiter(map(len, names), np.int32, len(rows))
        more = np.fromiter((genres.setdefault(name, len(genres)) for row in names for name in row), np.int32)
        by = ((row, items.creators[row]) for row in rows)
        known = [(row, creators.setdefault(name, len(creators))) for row, name in by if name]
        self._starts[at] = self._used + np.cumsum(counts) - counts
        end = self._used + len(more)
        if end > len(self._genres):
            self._genres = np.concatenate([self._genres, np.empty(end + end // _ROOM - len(self._genres), np.int32)])
        self._genres[self._used : end], self._used = more, end
        self._creators[[row for row, _ in known]] = [number for _, number in known]
        self._counts[at] = counts  # last: a row counts as known once all of it is


def _wanted(numbers: Mapping[str, int], names: Collection[str]) -> NDArray[np.bool_]:
    """bool [len(numbers) + 1]: True at the numbers of those names; the last one, where -1 leads, is False."""
    wanted = np.zeros(len(numbers) + 1, np.bool_)
    wanted[[numbers[name] for name in names if name in numbers]] = True
    return wanted


_OF: WeakKeyDictionary[Shelf, Labels] = WeakKeyDictionary()


def labels_of(content: RankingContent) -> Labels:
    """One for each pinned snapshot; the first that asks waits until it is made: some 0.1 s for 50,000 items."""
    labels = _OF.get(content.shelf)
    if labels is None:
        labels = _OF[content.shelf] = Labels(content.items, n_items=content.n_items)
        content.shelf.tell(labels.forget)
    return labels
