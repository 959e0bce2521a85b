"""The training set of what was served: vectors to the bit, labels as a naive loop finds them, sealed by its manifest."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import defaultdict
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from infra.catalog.applications.ranking import RANKING
from infra.catalog.features.ranking import RANKER_FEATURES
from infra.config.settings import CHECKOUT
from infra.contracts.errors import InvalidRequest
from infra.contracts.events import SHARDS
from infra.eventlog import records as wire
from infra.nearline.archive import end_of, read_archive
from infra.snapshots.storage import Storage
from spark_jobs.training import decisions
from spark_jobs.training.decisions import MANIFEST, Wanted, build
from spark_jobs.training.made_again import write_candidates
from spark_jobs.training.shown import LABELLED_SCHEMA, shown
from tests.fixtures.answers import HORIZON
from tests.unit.spark_jobs.training.served.conftest import Past

VISIT = timedelta(seconds=0.4)


def naive_labels(past: Past) -> dict[tuple[str, str], tuple[int, str, int]]:
    """(position, item) -> grade, event type, first moment; by a loop over everything."""
    did = defaultdict(list)
    for shard in range(SHARDS):
        known: set[str] = set()
        for piece in read_archive(past.archive, shard, after=0, upto=end_of(past.archive, shard)):
            for logged_ms, record in zip(piece.logged_ms, wire.decode(piece.payloads), strict=True):
                if record.kind == "user" and record.event_id not in known:
                    known.add(record.event_id)
                    did[record.entity_id, record.item_id].append((logged_ms, record.event_type))
    out = {}
    for entry in past.entries:
        decision = entry.decision()
        at_ms = decision.basis.now_us // 1000
        for item in decision.items:
            acted = [
                (RANKING.gain(event_type), -logged_ms, event_type)
                for logged_ms, event_type in did[decision.user_id, item]
                if 0 <= logged_ms - at_ms < VISIT.total_seconds() * 1000 and RANKING.gain(event_type) > 0
            ]
            if acted:
                gain, _, event_type = max(acted)
                out[entry.position, str(item)] = (gain, event_type, min(-minus for _, minus, _ in acted))
    return out


def wanted(past: Past) -> Wanted:
    return Wanted(past.since, past.until, VISIT, HORIZON)


def rows_of(out: Storage) -> pa.Table:
    return pa.concat_tables(pq.read_table(out.full(name)) for name in out.files("rows"))


def test_a_row_an_item_shown_with_its_vector_to_the_bit_and_its_label(
    spark: SparkSession, past: Past, tmp_path: Path
) -> None:
    out = Storage(str(tmp_path / "set"))
    rows = shown(spark, past.archive, since=past.since, until=past.until)
    manifest = build(spark, past.archive, rows, out, spec=RANKING, wanted=wanted(past))
    table = rows_of(out)
    assert table.schema.names == LABELLED_SCHEMA.names
    found = {(row["position"], row["item_id"]): row for row in table.to_pylist()}
    served = {(entry.position, str(item)) for entry in past.entries for item in entry.decision().items}
    assert found.keys() == served
    assert len(found) == table.num_rows == manifest["rows"], "one row an item shown"
    labels = naive_labels(past)
    assert len(labels) > 10
    for key, row in found.items():
        assert (row["grade"], row["event_type"], row["acted_ms"]) == labels.get(key, (0, None, None)), key
    compared = 0
    for entry in past.entries:
        decision = entry.decision()
        for place, (item, score) in enumerate(zip(decision.items, decision.scores, strict=True)):
            row = found[entry.position, str(item)]
            assert (row["place"], row["request_id"], row["version"]) == (place, decision.request_id, decision.version)
            assert np.float32(row["score"]).tobytes() == score.tobytes()
            assert json.loads(row["nearline"]) == json.loads(json.dumps(dict(decision.nearline)))
            if place < len(decision.features):
                assert np.array(row["features"], np.float32).tobytes() == decision.features[place].tobytes()
                compared += 1
            else:
                assert row["features"] is None
    assert compared > 1000
    assert manifest["answers"] == len({entry.position for entry in past.entries})
    assert json.loads(out.read(MANIFEST)) == json.loads(json.dumps(manifest, default=str))
    files = manifest["files"]
    assert isinstance(files, dict)
    assert files == {name: out.sha256(name) for name in out.files("rows")}


def test_all_candidates_follow_by_making_the_answers_again(spark: SparkSession, past: Past, tmp_path: Path) -> None:
    out = Storage(str(tmp_path / "all"))
    entries = [entry for entry in past.entries if len(entry.decision().features)][:25]
    done = asyncio.run(write_candidates(entries, past.offline(), out, "made_again"))
    assert (done.answers, done.left_out) == (25, 0)
    rows = spark.read.parquet(out.full("made_again"))
    build(spark, past.archive, rows, out, spec=RANKING, wanted=wanted(past), again=done)
    table = rows_of(out).to_pylist()
    assert len(table) == done.rows
    by_answer: dict[str, list[dict[str, object]]] = defaultdict(list)
    for row in table:
        by_answer[str(row["position"])].append(row)
    for entry in entries:
        decision = entry.decision()
        mine = by_answer[entry.position]
        assert {row["item_id"] for row in mine} >= set(decision.items)
        assert sum(int(str(row["place"])) >= 0 for row in mine) == len(decision.items)
        assert len({row["item_id"] for row in mine}) == len(mine)
    unseen = [row for row in table if row["place"] == -1]
    assert len(unseen) > 200
    assert all(len(row["features"]) == len(RANKER_FEATURES) for row in unseen)


def test_an_answer_that_is_not_exact_is_left_out_of_the_candidates(past: Past, tmp_path: Path) -> None:
    entry = next(entry for entry in past.entries if len(entry.decision().features))
    bits = np.frombuffer(entry.features, np.uint32).copy()
    bits[3] ^= 1
    changed = type(entry)(entry.position, entry.document, bits.tobytes())
    done = asyncio.run(write_candidates([changed], past.offline(), Storage(str(tmp_path)), "again"))
    assert (done.answers, done.left_out, done.rows) == (0, 1, 0)


def test_answers_whose_visits_are_not_over_are_refused(chosen: Past) -> None:
    with pytest.raises(InvalidRequest, match="visits"):
        decisions.main(since="2020-01-01T00:00:00Z", until="2100-01-01T00:00:00Z", sample=1)


def test_the_command_seals_a_set_once(chosen: Past, tmp_path: Path) -> None:
    out = tmp_path / "sealed"
    command = [sys.executable, "-m", "spark_jobs.training.decisions", "--all-candidates", "--sample", "12"]
    command += ["--since", chosen.since.isoformat(), "--out", str(out)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["made_again"]["answers"] == said["answers"] == 12
    assert said["rows"] > 200
    assert json.loads((out / MANIFEST).read_text())["files"] == said["files"]
    assert sorted(child.name for child in out.iterdir()) == [MANIFEST, "rows"]
    again = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=200, check=False)
    assert again.returncode == 1
    assert "is there already" in again.stderr
