"""case: one snapshot before the gate: everything that checks look at, read on demand and at most once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from infra.catalog.applications.spec import ApplicationSpec
from infra.config import console
from infra.contracts.candidates import Int32s
from infra.contracts.errors import SnapshotCorrupt, SnapshotNotFound
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import Manifest
from infra.snapshots.tables import CANDIDATES, ITEM_TABLE
from infra.snapshots.versions import SnapshotStore, Version
from validation.comparison import SAMPLE_USERS, Comparison, Side, compare
from validation.consumption import Consumption, read_consumption
from validation.exact import exact_sample
from validation.lists import Lists
from validation.scan import Scan, scan
from validation.summary import Expectation, SummaryBuilder

EXACT_USERS = 256
"""Users searched exactly: a recall of 0.95 is then known to about 0.01, in a second at a million items."""

_UNREADABLE = (SnapshotCorrupt, SnapshotNotFound, FileNotFoundError, KeyError, pa.ArrowInvalid)
"""What says that a live snapshot's files are gone or broken for good; a store that does not answer is none of these."""


T = TypeVar("T")


class Case:
    """`live` is what the alias names, None before the first flip; `store` the root of datasets and snapshots."""

    def __init__(self, version: Version, *, store: str, spec: ApplicationSpec, live: VersionName | None) -> None:
        self.version = version
        self.manifest: Manifest = version.manifest()
        self.spec = spec
        self.live = live
        self.comparison_problem = ""
        self._store = store
        self._rows: SummaryBuilder | None = None
        self._made: dict[str, object] = {}

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gives, made at the first call of that name and then kept."""
        if name not in self._made:
            self._made[name] = make()
        return cast(T, self._made[name])

    @cached_property
    def consumption(self) -> Consumption:
        """The dataset's side."""
        return read_consumption(self._store, spec=self.spec, dataset=self.manifest.dataset)

    @property
    def expectation(self) -> Expectation:
        """What lists are measured against."""
        manifest = self.manifest
        return Expectation(
            n_items=manifest.counts["items"],
            candidates_per_user=manifest.candidates_per_user,
            include_seen=manifest.include_seen,
            consumption=self.consumption,
        )

    @cached_property
    def item_ids(self) -> NDArray[np.object_]:
        """The name of each item index."""
        return item_column(self.version, self.manifest, "item_id")

    @cached_property
    def titles(self) -> NDArray[np.object_]:
        """The title of each item index."""
        return item_column(self.version, self.manifest, "title")

    @cached_property
    def chosen_users(self) -> Int32s:
        """The users looked at closely: another sample each build, the same one whenever this build is judged."""
        rng = np.random.default_rng(int(self.manifest.digest[:16], 16))
        users = self.consumption.users
        chosen: Int32s = np.sort(rng.choice(users, size=min(EXACT_USERS, len(users)), replace=False))
        return chosen

    @cached_property
    def scan(self) -> Scan:
        """One pass over the lists; the summary rows are made on the way."""
        rows = SummaryBuilder(self.expectation)
        with console.progress("reading lists", total=self.manifest.parts[CANDIDATES].rows) as advance:

            def each(lists: Lists) -> None:
                rows.add(lists)
                advance(len(lists))

            found = scan(self.version, self.manifest, keep=self.chosen_users, top_share=self._top_share, each=each)
        self._rows = rows
        return found

    @cached_property
    def users(self) -> pd.DataFrame:
        """The summary: one row a user who is expected or has a list."""
        if self._rows is None:
            _ = self.scan
        if self._rows is None:
            raise RuntimeError("a scan leaves its rows behind")
        table, self._rows = self._rows.table(), None
        return table

    @cached_property
    def exact(self) -> pd.DataFrame:
        """One row a chosen user: recall against exact search."""
        return exact_sample(self.version.storage, self.manifest, lists=self.scan.kept, expectation=self.expectation)

    @cached_property
    def comparison(self) -> Comparison | None:
        """This snapshot beside the live one; None with the reason in `no_comparison`."""
        if self._live is None:
            return None
        version, manifest = self._live
        try:
            with console.progress(f"reading {version.version}, which is live") as advance:
                theirs = scan(
                    version,
                    manifest,
                    keep=np.zeros(0, np.int32),
                    top_share=self._top_share,
                    each=lambda lists: advance(len(lists)),
                )
            ids = item_column(version, manifest, "item_id")
        except _UNREADABLE as error:
            self._note_unreadable(error)
            return None
        return compare(Side(self.manifest, self.scan, self.item_ids), Side(manifest, theirs, ids))

    @property
    def no_comparison(self) -> str:
        """Why there is nothing to compare with; empty where there is."""
        if self.live is None:
            return "no live snapshot to compare with"
        if self.live == self.version.version:
            return "this is the live snapshot: nothing else to compare it with"
        return self.comparison_problem if self.comparison is None else ""

    @cached_property
    def _live(self) -> tuple[Version, Manifest] | None:
        if self.live is None or self.live == self.version.version:
            return None
        try:
            version = SnapshotStore(self._store, self.version.application).get(self.live)
            return version, version.manifest()
        except _UNREADABLE as error:
            self._note_unreadable(error)
            return None

    def _note_unreadable(self, error: Exception) -> None:
        self.comparison_problem = f"{self.live} is live and cannot be read ({type(error).__name__}: {error})"

    @property
    def _top_share(self) -> float:
        rows = self.manifest.parts[CANDIDATES].rows
        if self._live is not None:
            rows = max(rows, self._live[1].parts[CANDIDATES].rows)
        return min(1.0, SAMPLE_USERS / max(rows, 1))


def item_column(version: Version, manifest: Manifest, column: str) -> NDArray[np.object_]:
    """One column of the item table, by item index."""
    tables = []
    for name in sorted(manifest.parts[ITEM_TABLE].files):
        with version.storage.open(name) as file:
            tables.append(pq.read_table(file, columns=["item_index", column]))
    table = pa.concat_tables(tables).sort_by("item_index")
    values: NDArray[np.object_] = table[column].to_numpy(zero_copy_only=False)
    return values
