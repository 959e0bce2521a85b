"""Every bad row is counted, written down with its reason, file and line, and too many of them change nothing."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.contracts.errors import DataRefused, InvalidRequest, NotEnoughRoom
from infra.snapshots.storage import Storage
from spark_jobs.ingest import workplace
from spark_jobs.ingest.rows import Reason
from tests.unit.spark_jobs.ingest.conftest import Importer

Write = Callable[[str, str | bytes], Path]

HEADER = b"user,item,time,type,value\n"
GOOD = b"u1,a,1714557600,click,1\n"
BAD_CSV: dict[bytes, Reason] = {
    b"u1,a,17145\n": Reason.FIELD_COUNT,
    b"u1,a,b,1714557601,click,1\n": Reason.FIELD_COUNT,
    b'u1,"a,1714557601,click,1\n': Reason.TORN_QUOTE,
    b'u1,"a"b,1714557601,click,1\n': Reason.TORN_QUOTE,
    b"u1,\xff\xfe,1714557601,click,1\n": Reason.NOT_UTF8,
    b",a,1714557601,click,1\n": Reason.MISSING_ID,
    b"u1,,1714557601,click,1\n": Reason.MISSING_ID,
    b"u1," + b"x" * 257 + b",1714557601,click,1\n": Reason.BAD_ID,
    b"u1,a,,click,1\n": Reason.BAD_TIME,
    b"u1,a,yesterday,click,1\n": Reason.BAD_TIME,
    b"u1,a,2024-02-30,click,1\n": Reason.BAD_TIME,
    b"u1,a,-5,click,1\n": Reason.TIME_OUT_OF_RANGE,
    b"u1,a,-9223372036854775808,click,1\n": Reason.TIME_OUT_OF_RANGE,
    b"u1,a,1969-12-31T23:59:59Z,click,1\n": Reason.TIME_OUT_OF_RANGE,
    b"u1,a,2024-06-01T00:05:01,click,1\n": Reason.FUTURE_TIME,
    b"u1,a,1714557601,,1\n": Reason.BAD_TYPE,
    b"u1,a,1714557601," + b"t" * 65 + b",1\n": Reason.BAD_TYPE,
    b"u1,a,1714557601,click,five\n": Reason.BAD_VALUE,
    b"u1,a,1714557601,click,NaN\n": Reason.VALUE_NOT_FINITE,
    b"u1,a,1714557601,click,-inf\n": Reason.VALUE_NOT_FINITE,
    b"u1,a,1714557601,click,1e300\n": Reason.VALUE_NOT_FINITE,
    GOOD: Reason.DUPLICATE,
    b"u1,a,2024-05-01T10:00:00Z,click,5\n": Reason.DUPLICATE,
}
BAD_JSON: dict[bytes, Reason] = {
    b'{"user": "u1", "item": "a", "ti\n': Reason.INVALID_JSON,
    b'["u1", "a"]\n': Reason.INVALID_JSON,
    b'{"user": "\\ud800", "item": "a", "time": 1714557601}\n': Reason.INVALID_JSON,
    b'{"user": "\xff", "item": "a", "time": 1714557601}\n': Reason.NOT_UTF8,
    b'{"user": null, "item": "a", "time": 1714557601}\n': Reason.MISSING_ID,
    b'{"user": true, "item": "a", "time": 1714557601}\n': Reason.BAD_ID,
    b'{"user": {"id": 1}, "item": "a", "time": 1714557601}\n': Reason.BAD_ID,
    b'{"user": 1.5, "item": "a", "time": 1714557601}\n': Reason.BAD_ID,
    b'{"user": ["u1"], "item": "a", "time": 1714557601}\n': Reason.BAD_ID,
    b'{"user": "u1", "item": "a"}\n': Reason.BAD_TIME,
    b'{"user": "u1", "item": "a", "time": {}}\n': Reason.BAD_TIME,
    b'{"user": "u1", "item": "a", "time": 1714557601, "type": "click", "value": false}\n': Reason.BAD_VALUE,
    b'{"user": "u1", "item": "a", "time": 1714557601, "value": NaN}\n': Reason.INVALID_JSON,
    b'{"user": "u1", "item": "a", "time": 1714557601, "type": 5.5}\n': Reason.BAD_TYPE,
}


@pytest.mark.parametrize(("line", "reason"), BAD_CSV.items())
def test_a_bad_csv_row_is_rejected_alone_with_its_line(
    importer: Importer, write: Write, line: bytes, reason: Reason
) -> None:
    dataset = importer.run(write("e.csv", HEADER + GOOD + line + b"u2,b,1714557600,click,2\n"), allowed=0.5)
    assert dataset.reasons() == [("e.csv", 3, reason)]
    assert [row[:2] for row in dataset.rows()] == [("u1", "a"), ("u2", "b")]
    assert dataset.record["counts"] == {"events": 2, "users": 2, "items": 2, "rows": 3, "rejected": {reason: 1}}


@pytest.mark.parametrize(("line", "reason"), BAD_JSON.items())
def test_a_bad_json_line_is_rejected_alone_with_its_line(
    importer: Importer, write: Write, line: bytes, reason: Reason
) -> None:
    good = b'{"user": "u1", "item": "a", "time": 1714557600, "type": "click", "value": 1}\n'
    dataset = importer.run(write("e.jsonl", good + line + good.replace(b"u1", b"u2")), allowed=0.5)
    assert dataset.reasons() == [("e.jsonl", 2, reason)]
    assert len(dataset.rows()) == 2


def test_every_reason_has_a_bad_row_that_shows_it() -> None:
    assert {*BAD_CSV.values(), *BAD_JSON.values()} == set(Reason)


def test_all_bad_rows_together_cost_nobody_else(importer: Importer, write: Write) -> None:
    lines = [line for line, reason in BAD_CSV.items() if reason != Reason.DUPLICATE]
    good = [b"u%d,a,1714557600,click,1\n" % number for number in range(len(lines))]
    mixed = b"".join(g + b for g, b in zip(good, lines, strict=True))
    dataset = importer.run(write("e.csv", HEADER + mixed), allowed=0.6)
    assert len(dataset.rows()) == len(good)
    assert [row[1] for row in dataset.reasons()] == [3 + 2 * number for number in range(len(lines))]
    texts = {int(str(row["line"])): str(row["text"]) for row in dataset.rejects}
    assert texts[3] == "u1,a,17145"


def test_a_bad_parquet_row_is_rejected_by_its_number(importer: Importer, write: Write) -> None:
    path = write("e.parquet", b"")
    columns = {
        "user": pa.array([1.0, 2.0, None, 1.5]),
        "item": ["a", "b", "c", "d"],
        "time": pa.array([1714557600.5, float("nan"), 1714557601.0, 1714557602.0]),
        "value": pa.array([None, 1.0, 1.0, 1.0]),
    }
    pq.write_table(pa.table(columns), path)
    dataset = importer.run(path, allowed=0.9)
    wanted = [("e.parquet", 2, "bad_time"), ("e.parquet", 3, "missing_id"), ("e.parquet", 4, "bad_id")]
    assert dataset.reasons() == wanted
    assert dataset.rows() == [("1", "a", "2024-05-01T10:00:00.500000+00:00", "event", None)]


def test_a_bad_row_of_a_side_table_is_rejected_too(importer: Importer, write: Write) -> None:
    write("items.csv", "item_id,title\na,First\n,Nameless\na,Second\ntorn\n")
    dataset = importer.run(write("e.csv", HEADER + GOOD).parent, allowed=0.9)
    wanted = [("items.csv", 3, "missing_id"), ("items.csv", 4, "duplicate"), ("items.csv", 5, "field_count")]
    assert dataset.reasons() == wanted
    assert dataset.items["title"].to_pylist() == ["First"]


def test_past_the_threshold_nothing_is_imported_and_the_rejects_are_kept(importer: Importer, write: Write) -> None:
    path = write("e.csv", HEADER + GOOD * 3 + b"u1,a,never,click,1\n")
    with pytest.raises(
        DataRefused, match=r"3 of 4 rows \(75.00%\).*2 duplicate, 1 bad_time.*--max-rejected"
    ) as refusal:
        importer.run(path, allowed=0.74)
    assert importer.datasets.names() == []
    store = Storage(f"{importer.store}/ranking")
    (kept,) = store.names("rejects")
    assert store.uri(f"rejects/{kept}") in str(refusal.value)
    assert len(store.read(f"rejects/{kept}").splitlines()) == 3
    assert list(importer.home.rglob("*.*")) == []
    assert len(importer.run(path, allowed=0.75).rows()) == 1


def test_a_stricter_threshold_counts_also_for_a_dataset_that_is_there(importer: Importer, write: Write) -> None:
    path = write("e.csv", HEADER + GOOD * 2)
    importer.run(path, allowed=0.5)
    with pytest.raises(DataRefused, match="1 duplicate"):
        importer.run(path, allowed=0.49)


def test_a_source_without_one_usable_row_is_refused_whatever_the_threshold(importer: Importer, write: Write) -> None:
    with pytest.raises(DataRefused, match="no usable event: 1 missing_id"):
        importer.run(write("e.csv", HEADER + b",a,1714557600,click,1\n"), allowed=1.0)
    with pytest.raises(InvalidRequest, match="wanted 0 to 1"):
        importer.run(write("e.csv", HEADER + GOOD), allowed=1.5)


def test_a_type_column_with_thousands_of_types_is_refused(importer: Importer, write: Write) -> None:
    rows = b"".join(b"u1,a,1714557600,t%d,1\n" % number for number in range(1001))
    with pytest.raises(DataRefused, match="more than 1,000 different event types.*--map"):
        importer.run(write("e.csv", HEADER + rows))


def test_the_same_source_again_is_the_same_dataset_and_costs_no_import(
    importer: Importer, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("e.csv", HEADER + GOOD)
    first = importer.run(path)
    monkeypatch.setattr("spark_jobs.ingest.job.batches", lambda *a, **k: pytest.fail("it was read again"))
    again = importer.run(path)
    assert again.done.dataset == first.done.dataset and again.done.reused and not first.done.reused
    monkeypatch.undo()
    changed = importer.run(write("e.csv", HEADER + GOOD + b"u2,a,1714557600,click,1\n"))
    assert changed.done.dataset != first.done.dataset
    assert importer.run(path, map="item=type,type=item").done.dataset != changed.done.dataset


def test_two_importers_of_one_source_write_the_same_bytes(importer: Importer, write: Write, tmp_path: Path) -> None:
    rows = b"".join(b"u%d,i%d,%d,click,1\n" % (n % 97, n % 31, 1714557600 + n) for n in range(3000))
    path = write("e.csv", HEADER + rows)
    other = Importer(str(tmp_path / "other"), tmp_path / "home2")
    assert importer.run(path).record["files"] == other.run(path).record["files"]


def test_a_full_disk_is_told_before_anything_is_written(
    importer: Importer, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workplace, "_PACKING", 10**15)
    path = write("e.csv.gz", gzip.compress(HEADER + GOOD))
    with pytest.raises(NotEnoughRoom, match=r"GB are free.*HEADGATE_HOME"):
        importer.run(path)
    assert not Path(importer.store).exists() and not importer.home.exists()


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from spark_jobs.ingest import job, sealing
put, done = sealing.put, []
def put_and_die(*args):
    put(*args)
    done.append(args)
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
sealing.put = put_and_die
options = job.ImportOptions("ranking", sys.argv[1], Path(sys.argv[3]), datetime(2024, 6, 1, tzinfo=UTC))
job.ingest(sys.argv[2], options)
"""


def test_an_importer_killed_while_it_writes_leaves_no_dataset_and_the_next_one_works(
    importer: Importer, write: Write
) -> None:
    path = write("e.csv", HEADER + GOOD)
    command = [sys.executable, "-c", KILLED, str(path), importer.store, str(importer.home)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    (half,) = importer.datasets.names()
    assert not importer.datasets.exists(f"{half}/dataset.json")
    assert list((importer.home / "tmp").iterdir()), "what it left on the local disk"
    dataset = importer.run(path)
    assert dataset.done.dataset == half and not dataset.done.reused and len(dataset.rows()) == 1
    assert list((importer.home / "tmp").iterdir()) == []


def test_the_command_prints_its_result_as_json_and_loads_no_spark(write: Write, tmp_path: Path) -> None:
    path = write("e.csv", HEADER + GOOD * 2)
    code = (
        "import sys; from spark_jobs.ingest.__main__ import app; app(sys.argv[1:], standalone_mode=False); "
        "sys.exit('pyspark' in sys.modules)"
    )
    words = ["--application=ranking", f"--source={path}", "--max-rejected-fraction=0.5", "--map=value=value"]
    environment = {"HEADGATE_HOME": str(tmp_path / "home"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["events"], result["rejected"], result["reused"]) == (1, {"duplicate": 1}, False)
    assert Path(result["rejects"]).read_text().count("\n") == 1
    assert "rejected 1 of 2 rows: duplicate" in done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "spark_jobs.ingest", *words[:2]],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert "error: DataRefused: 1 of 2 rows (50.00%) were rejected" in done.stderr
