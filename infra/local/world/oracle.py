"""oracle: the truth behind a generated world: how much a user really wants an item at a moment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infra.contracts.errors import DatasetNotFound, InvalidRequest
from infra.local.world import choice
from infra.local.world.catalogue import Catalogue, Floats
from infra.local.world.people import People
from infra.local.world.sessions import World
from infra.local.world.size import WorldSize


def write_oracle(world: World, folder: Path) -> None:
    """One .npy a true array, so that a reader maps what it needs: items-*, people-*, trend."""
    folder.mkdir(parents=True)
    for name, part in (("items", world.items), ("people", world.people)):
        for field in fields(part):
            np.save(folder / f"{name}-{field.name}.npy", getattr(part, field.name))
    np.save(folder / "trend.npy", world.trend)


class Oracle:
    """The best that any recommender without the session's context could know, as log chances up to a constant of user and time.

    users, items: each id's number in the world's arrays.
    """

    def __init__(self, world: World, user_ids: Sequence[str], item_ids: Sequence[str]) -> None:
        self.world = world
        self.users = {user_id: number for number, user_id in enumerate(user_ids)}
        self.items = {item_id: number for number, item_id in enumerate(item_ids)}

    @classmethod
    def open(cls, folder: str | Path) -> Oracle:
        """The world's folder (that holds world.json)."""
        folder = Path(folder)
        if not (folder / "world.json").exists():
            raise DatasetNotFound(
                f"{folder} holds no world.json.", mend=f"Run: python -m infra.local.world generate --out {folder}"
            )
        record = json.loads((folder / "world.json").read_text())
        known = {field.name for field in fields(WorldSize)}
        size = WorldSize(
            **{name: value for name, value in record.items() if name in known and name != "start"},
            start=datetime.fromisoformat(record["start"]),
        )
        truth = folder / "oracle"
        items = Catalogue(**{f.name: np.load(truth / f"items-{f.name}.npy", mmap_mode="r") for f in fields(Catalogue)})
        people = People(**{f.name: np.load(truth / f"people-{f.name}.npy", mmap_mode="r") for f in fields(People)})
        world = World(size, items, people, np.load(truth / "trend.npy"))
        user_ids = pq.read_table(folder / "users.parquet", columns=["user_id"])["user_id"].to_pylist()
        item_ids = pq.read_table(folder / "items.parquet", columns=["item_id"])["item_id"].to_pylist()
        return cls(world, user_ids, item_ids)

    def score(self, user_ids: Sequence[str], item_ids: Sequence[str], at: datetime) -> Floats:
        """float32 [n]: the true score of each pair (user_ids[k], item_ids[k]); -inf where the item was not born yet."""
        if len(user_ids) != len(item_ids):
            raise InvalidRequest(f"{len(user_ids)} users and {len(item_ids)} items; wanted pairs.")
        users, items = self._numbers(user_ids, self.users, "user"), self._numbers(item_ids, self.items, "item")
        liking = np.einsum("nd,nd->n", self._taste(users, at), self.world.items.vectors[items])
        misfit = choice.age_misfit(self.world.people.age_years[users], self.world.items.age_target[items])
        return np.float32(choice.TASTE) * liking - misfit + self._log_seen(users, items, at)

    def matrix(self, user_ids: Sequence[str], at: datetime) -> Floats:
        """float32 [users, items]: `score` of those users and every item, in the order of items.parquet."""
        users = self._numbers(user_ids, self.users, "user")
        items = np.arange(len(self.items))
        liking = self._taste(users, at) @ np.asarray(self.world.items.vectors).T
        misfit = choice.age_misfit(self.world.people.age_years[users][:, None], self.world.items.age_target[None, :])
        return np.float32(choice.TASTE) * liking - misfit + self._log_seen(users[:, None], items[None, :], at)

    def _taste(self, users: NDArray[np.int64], at: datetime) -> Floats:
        size, people = self.world.size, self.world.people
        share = choice.taste_share(_us(at), start_us=size.start_us, days=size.days)
        return choice.taste_at(people.taste_start[users], people.taste_end[users], share)

    def _log_seen(self, users: NDArray[np.int64], items: NDArray[np.int64], at: datetime) -> Floats:
        """The log chance that a slot of the user's page shows the item."""
        catalogue = self.world.items
        seen = choice.attention(catalogue, self.world.trend, start_us=self.world.size.start_us, at_us=_us(at))
        genre = catalogue.genres[items, 0]
        mixture = self.world.people.mixture[users, genre]
        within = choice.SHARE_MIX * mixture / np.maximum(seen.genre_total[genre], 1e-30)
        chance = within + choice.SHARE_ANY / seen.genre_total.sum()
        return (np.log(chance) + seen.log_weight[items]).astype(np.float32)

    @staticmethod
    def _numbers(ids: Sequence[str], known: dict[str, int], what: str) -> NDArray[np.int64]:
        try:
            return np.array([known[name] for name in ids], np.int64)
        except KeyError as error:
            raise InvalidRequest(f"This world has no {what} {error.args[0]!r}.") from error


def _us(at: datetime) -> int:
    if at.tzinfo is None:
        raise InvalidRequest(f"{at.isoformat()} has no zone; wanted aware UTC.")
    return round(at.timestamp() * 1_000_000)
