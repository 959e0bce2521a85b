"""consumption: what the dataset itself says: which users there are, and which items each of them has consumed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infra.catalog.applications.spec import ApplicationSpec
from infra.contracts.candidates import Int32s
from infra.contracts.errors import DatasetNotFound
from infra.contracts.ids import DatasetId
from infra.snapshots.storage import Storage

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Consumption:
    """Read from the imported events, never from anything that a build job wrote.

    users: int32, rising: everybody with an event of any kind. owner, item: int32, aligned, rising by owner then item:
    each distinct item that a user consumed (an event of positive gain). user_ids: the dataset's name of each user index,
    empty where it has no users table.
    """

    users: Int32s
    owner: Int32s
    item: Int32s
    user_ids: dict[int, str]

    def of(self, user_index: Int32s) -> tuple[Int64s, Int32s]:
        """Positions in `user_index` and items: every consumed item of each of those users, in that order."""
        low = np.searchsorted(self.owner, user_index, "left")
        counts = np.searchsorted(self.owner, user_index, "right") - low
        row = np.repeat(np.arange(len(user_index)), counts)
        within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        return row, self.item[low[row] + within]

    def counts(self, user_index: Int32s) -> Int64s:
        """How many distinct items each of those users has consumed."""
        low = np.searchsorted(self.owner, user_index, "left")
        return np.asarray(np.searchsorted(self.owner, user_index, "right") - low, np.int64)


def read_consumption(store: str, *, spec: ApplicationSpec, dataset: DatasetId) -> Consumption:
    """From {store}/{application}/datasets/{dataset}/events; raises DatasetNotFound where there are none."""
    storage = Storage(f"{store}/{spec.name}/datasets/{dataset}")
    files = [name for name in storage.files("events") if name.endswith(".parquet")] if storage.exists("events") else []
    if not files:
        raise DatasetNotFound(
            f"{storage.uri('events')} holds no events: the users that {spec.name} must have candidates for are unknown.",
            mend="HEADGATE_STORE must be the one that the snapshot was built in.",
        )
    users, pairs = [], []
    for name in files:
        with storage.open(name) as file:
            table = pq.read_table(
                file, columns=["user_index", "item_index", "event_type"], read_dictionary=["event_type"]
            )
        owner = table["user_index"].to_numpy()
        users.append(np.unique(owner))
        keep = _is_consumption(table["event_type"], spec)
        pairs.append(np.unique(owner[keep].astype(np.int64) << 32 | table["item_index"].to_numpy()[keep]))
    keys = np.unique(np.concatenate(pairs))
    return Consumption(
        users=np.unique(np.concatenate(users)).astype(np.int32),
        owner=(keys >> 32).astype(np.int32),
        item=(keys & 0xFFFFFFFF).astype(np.int32),
        user_ids=_user_ids(storage),
    )


def _is_consumption(event_type: pa.ChunkedArray, spec: ApplicationSpec) -> NDArray[np.bool_]:
    parts = []
    for chunk in event_type.chunks:
        coded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        positive = np.array([spec.gain(name) > 0 for name in coded.dictionary.to_pylist()] or [False])
        parts.append(positive[coded.indices.to_numpy()])
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def _user_ids(storage: Storage) -> dict[int, str]:
    if not storage.exists("users.parquet"):
        return {}
    with storage.open("users.parquet") as file:
        table = pq.read_table(file, columns=["user_index", "user_id"])
    return dict(zip(table["user_index"].to_pylist(), table["user_id"].to_pylist(), strict=True))
