"""Frames go to the store and come back, by Spark or by the workers, and leave exactly their own files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from infra.contracts.errors import DatasetNotFound
from infra.snapshots.storage import Storage
from spark_jobs import frames
from spark_jobs.session import project_archive

SCHEMA = pa.schema([pa.field("number", pa.int32(), nullable=False), pa.field("name", pa.string())])


def test_a_frame_is_read_back_as_it_was_written(spark: SparkSession, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write("table/part-left-behind.parquet", b"of an earlier try")
    frame = spark.range(1000).selectExpr("cast(id as int) number", "concat('n', id) name").repartition(3)
    written = frames.write(frame, storage, "table", schema=SCHEMA)
    assert written.rows == 1000 and len(written.files) == 3 and storage.files("table") == list(written.files)
    for back in (frames.read(spark, storage, "table"), frames.read_by_workers(spark, storage, "table")):
        table = back.toArrow().sort_by("number")
        assert table["number"].to_pylist() == list(range(1000)) and table["name"][7].as_py() == "n7"
    only = frames.read_by_workers(spark, storage, "table", columns=["name"])
    assert only.columns == ["name"] and only.count() == 1000


def test_an_empty_frame_still_makes_a_table(spark: SparkSession, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    written = frames.write(spark.range(0).selectExpr("cast(id as int) number", "'' name"), storage, "t", schema=SCHEMA)
    assert written.rows == 0
    assert pq.read_schema(storage.full(written.files[0])) == SCHEMA
    assert frames.read(spark, storage, "t").count() == 0


def test_a_missing_table_says_where_it_was_looked_for(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match="nowhere"):
        frames.read(spark, Storage(str(tmp_path)), "nowhere")


def test_the_archive_for_cluster_workers_holds_what_they_import(tmp_path: Path) -> None:
    file = tmp_path / "project.zip"
    file.write_bytes(project_archive())
    names = zipfile.ZipFile(file).namelist()
    assert {"infra/contracts/candidates.py", "spark_jobs/candidates/retrieval.py"} <= set(names)
