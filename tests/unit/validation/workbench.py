"""workbench: a good sealed snapshot taken apart, spoilt in one way and sealed again: what a broken build would leave."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost
from numpy.typing import NDArray

from infra.catalog.applications import application
from infra.contracts.candidates import Float32s, Int32s, ScoreMap
from infra.contracts.errors import SnapshotCorrupt
from infra.contracts.ids import VersionName
from infra.contracts.snapshots import Manifest, State
from infra.snapshots.chunks import seal_chunks
from infra.snapshots.tables import CANDIDATES, CANDIDATES_SCHEMA, CHUNKS, NETWORK, RANKER, USER_VECTORS
from infra.snapshots.versions import SnapshotStore, Version
from tests.fixtures.tiny_snapshot import RANKING, TinyWorld
from validation.case import Case
from validation.gate import Outcome, judge_version
from validation.live import Live

Row = dict[str, object]
NOW = datetime(2024, 6, 2, 12, tzinfo=UTC)


@dataclass
class Workbench:
    """A sealed version whose parts are edited in place; `reseal` writes a manifest that fits what lies there then."""

    store: str
    version: Version
    world: TinyWorld

    @property
    def manifest(self) -> Manifest:
        return self.version.manifest()

    # -- the lists

    def rows(self) -> list[Row]:
        return [row for name in self.files(CANDIDATES) for row in self.read(name).to_pylist()]

    def edit_rows(self, change: Callable[[list[Row]], object]) -> Version:
        """All lists, changed in place and written as one file; the manifest counts what is there, as the build would."""
        rows = self.rows()
        change(rows)
        first, *rest = self.files(CANDIDATES)
        self.write(first, pa.Table.from_pylist(rows, schema=CANDIDATES_SCHEMA))
        for name in rest:
            self.write(name, pa.Table.from_pylist([], schema=CANDIDATES_SCHEMA))
        return self.reseal(counts={**self.manifest.counts, "users": len(rows)})

    def edit_row(self, change: Callable[[Row], object], *, at: int = 7) -> Version:
        """One user's list."""
        return self.edit_rows(lambda rows: change(rows[at]))

    def products(self, user: int) -> Float32s:
        """The inner product of each item for that user."""
        return cast(Float32s, self.world.item_vectors @ self.world.user_vectors[user])

    def set_items(self, row: Row, items: NDArray[np.integer]) -> None:
        """Those items with their right scores in their right order."""
        products = self.products(int(cast(int, row["user_index"])))
        put(row, *ScoreMap(self.manifest.score_scale).ordered(items, products[items]))

    # -- other parts

    def edit_table(self, part: str, change: Callable[[pa.Table], pa.Table]) -> Version:
        (name,) = self.files(part)
        self.write(name, change(self.read(name)))
        rows = {"item_table": "items"}.get(part)
        n = self.read(name).num_rows
        return self.reseal(counts={**self.manifest.counts, **({rows: n} if rows else {})})

    def edit_ranker(self, change: Callable[[bytes], bytes]) -> Version:
        (name,) = self.files(RANKER)
        self.version.storage.write(name, change(self.version.storage.read(name)))
        return self.reseal()

    def edit_network(self, change: Callable[[bytes], bytes]) -> Version:
        (name,) = self.files(NETWORK)
        self.version.storage.write(name, change(self.version.storage.read(name)))
        return self.reseal()

    def edit_stage(self, name: str, **fields: object) -> Version:
        """What the manifest says of a scorer."""
        stages = self.manifest.stages
        return self.reseal(stages={**stages, name: replace(stages[name], **fields)})  # type: ignore[arg-type]

    def drop_user_vector(self, user: int) -> Version:
        return self.edit_table(
            USER_VECTORS, lambda table: table.filter(pa.compute.not_equal(table["user_index"], user))
        )

    def files(self, part: str) -> list[str]:
        return sorted(self.manifest.parts[part].files)

    def read(self, name: str) -> pa.Table:
        with self.version.storage.open(name) as file:
            return pq.read_table(file)

    def write(self, name: str, table: pa.Table) -> None:
        sink = io.BytesIO()
        pq.write_table(table, sink)
        self.version.storage.write(name, sink.getvalue())

    # -- sealing

    def reseal(self, **changes: object) -> Version:
        """Digest the parts as they lie now, apply the changes to the manifest, seal: STAGED again."""
        old, storage = self.manifest, self.version.storage
        parts = {}
        for name, part in old.parts.items():
            digests = {file: storage.sha256(file) for file in part.files}
            rows = (
                part.rows if name.startswith(("ranker", "network")) else sum(self._rows_in(file) for file in part.files)
            )
            parts[name] = replace(part, rows=rows, files=digests)
        with suppress(SnapshotCorrupt):  # files that are no Parquet have no records: then the old digests stay
            parts[CHUNKS], root = seal_chunks(self.version, sorted(old.parts[CANDIDATES].files))
            changes = {"records_root": root, **changes}
        manifest = replace(old, **{"parts": parts, **changes})  # type: ignore[arg-type]
        storage.remove("manifest.json")
        storage.remove("states")
        self.version.seal(manifest, actor="test")
        return self.version

    def _rows_in(self, name: str) -> int:
        try:
            with self.version.storage.open(name) as file:
                return int(pq.read_metadata(file).num_rows)
        except pa.ArrowInvalid:
            return 0

    # -- judging

    def judge(self, *, live: str | None = None, now: datetime = NOW) -> Outcome:
        return judge(self.version, store=self.store, live=live, now=now)

    def case(self, *, live: str | None = None) -> Case:
        name = VersionName(live) if live else None
        return Case(self.version, store=self.store, spec=application(RANKING), live=name)


def judge(version: Version, *, store: str, live: str | None = None, now: datetime = NOW) -> Outcome:
    """The gate as the command runs it, the live version given."""
    return judge_version(
        version, store=store, live=Live(VersionName(live) if live else None), actor="test gate", now=now
    )


def open_workbench(root: Path, version: str, world: TinyWorld) -> Workbench:
    """On a copy of a store that a session fixture made."""
    return Workbench(str(root), SnapshotStore(str(root), RANKING).get(version), world)


def put_live(version: Version) -> None:
    """As far as the records on the store say."""
    version.record(State.VALIDATED, actor="test", reason="")
    version.record(State.LIVE, actor="test", reason="")


def items_of(row: Row) -> Int32s:
    return np.frombuffer(cast(bytes, row["item_indices"]), "<i4").copy()


def scores_of(row: Row) -> NDArray[np.float16]:
    return np.frombuffer(cast(bytes, row["scores"]), "<f2").copy()


def put(row: Row, items: NDArray[np.integer], scores: NDArray[np.floating]) -> None:
    row["item_indices"] = items.astype("<i4").tobytes()
    row["scores"] = scores.astype("<f2").tobytes()


def with_leaves(model: bytes, value: float) -> bytes:
    """The booster with each leaf giving that value."""
    booster = xgboost.Booster()
    booster.load_model(bytearray(model))
    content = json.loads(bytes(booster.save_raw("json")))
    for tree in content["learner"]["gradient_booster"]["model"]["trees"]:
        leaves = [at for at, left in enumerate(tree["left_children"]) if left == -1]
        for at in leaves:
            tree["split_conditions"][at] = value
            tree["base_weights"][at] = value
    broken = xgboost.Booster()
    broken.load_model(bytearray(json.dumps(content).encode()))
    return bytes(broken.save_raw("ubj"))
