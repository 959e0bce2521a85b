"""Every format becomes the same dataset, with ids, times, titles and genres as its source has them."""

from __future__ import annotations

import bz2
import gzip
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.catalog.applications.ranking import RANKING as RANKING_SPEC
from infra.contracts.errors import DataRefused, InvalidRequest
from infra.local.world.generate import generate
from infra.local.world.size import WorldSize
from tests.fixtures.tiny_dataset import taste_events, write_dataset
from tests.unit.spark_jobs.ingest.conftest import Importer
from validation.consumption import read_consumption

Write = Callable[[str, str | bytes], Path]

WANTED = [
    ("u1", "a", "2024-05-01T10:00:00+00:00", "click", None),
    ("u1", "b", "2024-05-01T10:00:05+00:00", "purchase", 9.5),
    ("u2", "a", "2024-05-02T00:00:00+00:00", "click", None),
]
CSV = (
    "user_id,item_id,timestamp,event_type,value\n"
    "u1,a,1714557600,click,\n"
    "u1,b,2024-05-01T10:00:05Z,purchase,9.5\n"
    "u2,a,2024-05-02,click,\n"
)
JSONL = (
    '{"user_id": "u1", "item_id": "a", "timestamp": 1714557600000, "event_type": "click"}\n'
    '{"user_id": "u1", "item_id": "b", "timestamp": "2024-05-01 12:00:05+02:00", "event_type": "purchase", "value": 9.5}\n'
    '\n{"user_id": "u2", "item_id": "a", "timestamp": 1714608000.0, "event_type": "click", "value": null}'
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("events.csv", CSV.encode()),
        ("events.csv", b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode()),
        ("events.tsv", CSV.replace(",", "\t").encode()),
        ("events.csv", CSV.replace(",", ";").encode()),
        ("events.csv", CSV.replace("u1", '"u1"').replace("\n", "\n\n").encode()),
        ("events.csv.gz", gzip.compress(CSV.encode())),
        ("events.csv.bz2", bz2.compress(CSV.encode())),
        ("events.jsonl", JSONL.encode()),
        ("events.ndjson.gz", gzip.compress(JSONL.encode())),
    ],
    ids=["csv", "bom and crlf", "tsv", "semicolons", "quotes and blank lines", "gz", "bz2", "jsonl", "ndjson gz"],
)
def test_text_of_any_kind_is_read(importer: Importer, write: Write, name: str, content: bytes) -> None:
    dataset = importer.run(write(name, content))
    assert dataset.rows() == WANTED
    assert dataset.rejects == []


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
@pytest.mark.parametrize("unit", ["s", "ns"])
def test_parquet_is_read_whatever_its_types(importer: Importer, write: Write, unit: str, zone: str | None) -> None:
    path = write("events.parquet", b"")
    moments = [datetime.fromisoformat(row[2]) for row in WANTED]
    table = {
        "user_id": pa.array([row[0] for row in WANTED]).dictionary_encode(),
        "item_id": pa.array([row[1] for row in WANTED], pa.large_string()),
        "timestamp": pa.array(moments, pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, zone)),
        "event_type": [row[3] for row in WANTED],
        "value": pa.array([row[4] for row in WANTED], pa.float64()),
    }
    pq.write_table(pa.table(table), path)
    assert importer.run(path).rows() == WANTED


def test_numbers_are_ids_by_their_digits(importer: Importer, write: Write) -> None:
    path = write("events.parquet", b"")
    pq.write_table(pa.table({"user": [7, 8], "item": [1.0, 2.0], "time": [1714557600, 1714557601]}), path)
    assert [row[:2] for row in importer.run(path).rows()] == [("7", "1"), ("8", "2")]


def test_columns_of_other_names_are_mapped(importer: Importer, write: Write) -> None:
    path = write("log.csv", "who,what,when,how\nu1,a,1714557600,seen\n")
    with pytest.raises(DataRefused, match=r"no column for the user .* it has 'who', 'what'.*--map user=COLUMN"):
        importer.run(path)
    mapped = importer.run(path, map="user=who,item=what,time=when,type=how")
    assert mapped.rows() == [("u1", "a", "2024-05-01T10:00:00+00:00", "seen", None)]
    with pytest.raises(InvalidRequest, match="user=nobody; log.csv has the columns 'who'"):
        importer.run(path, map="user=nobody,item=what,time=when")


def test_numbers_name_the_columns_of_a_csv_without_header(importer: Importer, write: Write) -> None:
    path = write("log.csv", "1714557600,u1,a\n1714557601,u1,b\n")
    assert len(importer.run(path, map="user=2,item=3,time=1").rows()) == 2


def test_data_without_times_is_refused_until_the_order_of_lines_may_stand_for_time(
    importer: Importer, write: Write
) -> None:
    write("part/a.csv", "user,item\nu1,a\nu1,a\n")
    path = write("part/b.csv", "user,item\nu2,a\n").parent
    with pytest.raises(DataRefused, match="--map time=none"):
        importer.run(path)
    dataset = importer.run(path, map="time=none")
    assert [row[2][:19] for row in dataset.rows()] == [f"2000-01-01T00:00:0{second}" for second in range(3)]
    assert str(dataset.record["times"]).startswith("none in the data")


def test_a_value_that_is_called_rating_makes_ratings(importer: Importer, write: Write) -> None:
    dataset = importer.run(write("r.csv", "user,item,stars,time\nu,a,4.5,1714557600\n"))
    assert dataset.rows()[0][3:] == ("rating", 4.5)


def test_a_folder_a_glob_and_an_object_store_are_read(importer: Importer, write: Write) -> None:
    head, *lines = CSV.splitlines(keepends=True)
    for number, line in enumerate(lines):
        path = write(f"day={number}/part.csv", head + line)
        fsspec.filesystem("memory").pipe_file(f"/ingest-test/day={number}/part.csv", (head + line).encode())
    write("day=0/_SUCCESS", "")
    write("README.md", "about")
    for source in (path.parents[1], path.parents[1] / "*/*.csv", "memory://ingest-test"):
        assert importer.run(source).rows() == WANTED
    assert len(importer.run("memory://ingest-test/day=0/part.csv").rows()) == 1


def test_items_and_users_beside_the_events_are_taken_along(importer: Importer, write: Write) -> None:
    write("items.csv", 'id,title,genres,brand\nb,"Tea, green",Food|Drink,ACME\nz,Unsold,,\n')
    write(
        "users.jsonl", '{"user_id": "u2", "age": 31, "gender": "f"}\n{"user_id": "u9", "age": 999, "country": "NL"}\n'
    )
    dataset = importer.run(write("events/one.csv", CSV).parents[1])
    assert dataset.rows() == WANTED
    items = {row["item_id"]: row for row in dataset.items.to_pylist()}
    assert (items["b"]["title"], items["b"]["genres"], items["b"]["creator"]) == (
        "Tea, green",
        ["Food", "Drink"],
        "ACME",
    )
    assert (items["z"]["genres"], items["z"]["creator"], items["z"]["first_seen"]) == ([], None, None)
    assert items["a"]["title"] == "a", "the id where nobody told a title"
    assert items["a"]["first_seen"] == datetime(2024, 5, 1, 10, tzinfo=UTC)
    users = {row["user_id"]: row for row in dataset.users.to_pylist()}
    assert (users["u2"]["age_years"], users["u2"]["gender"], users["u2"]["n_events"]) == (31, "f", 1)
    assert users["u9"]["age_years"] != users["u9"]["age_years"] and users["u9"]["country"] == "NL"
    assert users["u9"]["n_events"] == 0
    assert [row["item_index"] for row in dataset.items.to_pylist()] == list(range(3))


MOVIES = "{id}{d}{q}American President, The (1995){q}{d}Comedy|Drama\n{id2}{d}Caf\u00e9 (2000){d}(no genres listed)\n"


def _movielens_csv(write: Write, *, header: bool) -> Path:
    movies = MOVIES.format(id=10, id2=11, d=",", q='"')
    write("ml/tags.csv", "1,10,nice,1000000000\n")
    write("ml/movies.csv", ("movieId,title,genres\n" if header else "") + movies)
    ratings = "1,10,4.5,1000000000\n2,10,3.0,1000000001\n2,11,0.5,1000000002\n"
    return write("ml/ratings.csv", ("userId,movieId,rating,timestamp\n" if header else "") + ratings).parent


def _movielens_1m(write: Write) -> Path:
    write("ml/movies.dat", MOVIES.format(id=10, id2=11, d="::", q="").encode("latin-1"))
    write("ml/users.dat", "1::F::1::10::48067\n2::M::56::16::70072\n")
    return write("ml/ratings.dat", "1::10::4.5::1000000000\n2::10::3::1000000001\n2::11::0.5::1000000002\n").parent


def _movielens_100k(write: Write) -> Path:
    flags = {10: "0|0|0|0|0|1|0|0|1|0|0|0|0|0|0|0|0|0|0", 11: "1" + "|0" * 18}
    titles = {10: "American President, The (1995)", 11: "Caf\u00e9 (2000)"}
    rows = (f"{number}|{titles[number]}|01-Jan-1995||http://x|{flags[number]}\n" for number in titles)
    write("ml/u.item", "".join(rows).encode("latin-1"))
    write("ml/u.user", "1|24|F|technician|85711\n2|53|M|other|94043\n")
    return write("ml/u.data", "1\t10\t4.5\t1000000000\n2\t10\t3\t1000000001\n2\t11\t0.5\t1000000002\n").parent


@pytest.mark.parametrize(
    ("make", "ages"),
    [
        (lambda write: _movielens_csv(write, header=True), None),
        (lambda write: _movielens_csv(write, header=False), None),
        (_movielens_1m, [15, 60]),
        (_movielens_100k, [24, 53]),
    ],
    ids=["latest", "latest without header", "1m", "100k"],
)
def test_every_edition_of_movielens_is_recognised(
    importer: Importer, write: Write, make: Callable[[Write], Path], ages: list[int] | None
) -> None:
    dataset = importer.run(make(write))
    assert dataset.record["format"] == "movielens"
    assert [row[:2] + row[3:] for row in dataset.rows()] == [
        ("1", "10", "rating", 4.5),
        ("2", "10", "rating", 3.0),
        ("2", "11", "rating", 0.5),
    ]
    assert dataset.rows()[0][2] == "2001-09-09T01:46:40+00:00"
    titles = [(row["title"], row["genres"]) for row in dataset.items.to_pylist()]
    assert titles == [("The American President (1995)", ["Comedy", "Drama"]), ("Caf\u00e9 (2000)", [])]
    if ages:
        assert dataset.users["age_years"].to_pylist() == ages
        assert dataset.users["gender"].to_pylist() == ["F", "M"]


def test_a_movielens_zip_is_read_as_it_was_downloaded(importer: Importer, write: Write, tmp_path: Path) -> None:
    folder = _movielens_csv(write, header=True)
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as packed:
        for path in folder.iterdir():
            packed.write(path, f"ml-latest-small/{path.name}")
    assert len(importer.run(tmp_path / "ml.zip").rows()) == 3


def test_a_generated_world_is_read_with_all_its_items_users_and_events(importer: Importer, tmp_path: Path) -> None:
    generate(
        WorldSize(users=40, items=60, events=2_000, seed=1, days=5, start=datetime(2024, 5, 1, tzinfo=UTC)),
        tmp_path / "world",
    )
    dataset = importer.run(tmp_path / "world", allowed=0.01)
    rejected = len(dataset.rejects)
    assert dataset.record["format"] == "world" and dataset.record["oracle"] == str(tmp_path / "world")
    assert (dataset.events.num_rows, dataset.users.num_rows, dataset.items.num_rows) == (2_000 - rejected, 40, 60)
    assert dataset.items["title"].null_count == 0 and dataset.items["creator"].null_count == 0


def test_a_dataset_has_the_layout_that_its_readers_are_tested_with(importer: Importer, write: Write) -> None:
    dataset = importer.run(write("events.csv", CSV))
    wanted = write_dataset(
        importer.store, taste_events(users=3, items=4, events=9, seed=0), users=3, items=4, dataset="wanted"
    )
    mine, theirs = (importer.datasets.below(name) for name in (dataset.done.dataset, wanted))
    pairs = {"events/part-00000.parquet": "events/part-0000.parquet"} | {
        n: n for n in ("items.parquet", "users.parquet")
    }
    for name, same in pairs.items():
        with mine.open(name) as seen, theirs.open(same) as file:
            assert pq.read_schema(seen).remove_metadata() == pq.read_schema(file).remove_metadata()
    assert set(json.loads(theirs.read("dataset.json"))) <= set(dataset.record)
    for name, digest in dict(dataset.record["files"]).items():  # type: ignore[call-overload]
        assert mine.sha256(name) == digest
    assert read_consumption(importer.store, spec=RANKING_SPEC, dataset=dataset.done.dataset).user_ids == {
        0: "u1",
        1: "u2",
    }


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "a.csv is empty"),
        ("a.csv", b"user,item,time\n", "holds no events"),
        ("a.csv.gz", gzip.compress(CSV.encode())[:-9], "a.csv.gz cannot be read"),
        ("a.csv.gz", CSV.encode(), "a.csv.gz cannot be read: Not a gzipped file"),
        ("a.parquet", b"PAR1 no", "a.parquet cannot be read"),
        ("a.csv", CSV.encode("utf-16"), "is UTF-16"),
        ("a.json", b'[{"user": 1}]', "one JSON array"),
        ("a.jsonl", b"\n\n", "holds no JSON object"),
        ("a.xlsx", b"x", "no format that is known by its ending"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(
    importer: Importer, write: Write, name: str, content: bytes, says: str
) -> None:
    with pytest.raises(DataRefused, match=says):
        importer.run(write(name, content))
    assert importer.datasets.names() == []


def test_a_source_that_is_not_there_is_refused(importer: Importer, tmp_path: Path) -> None:
    for source in (tmp_path / "nothing.csv", tmp_path / "*.csv", "nosuchscheme://x/y.csv", ""):
        with pytest.raises(DataRefused, match="source|no file"):
            importer.run(source if source == "" else str(source))
    with pytest.raises(DataRefused, match="holds no ratings"):
        (tmp_path / "readme.txt").write_text("hello")
        importer.run(tmp_path / "readme.txt", format="movielens")


def test_a_folder_of_several_formats_wants_to_be_told_which(importer: Importer, write: Write) -> None:
    write("a.jsonl", JSONL)
    folder = write("b.csv", CSV).parent
    with pytest.raises(DataRefused, match="several formats: a.jsonl, b.csv"):
        importer.run(folder)
    assert importer.run(folder, format="csv").rows() == importer.run(folder, format="jsonl").rows() == WANTED


def test_a_store_on_an_object_store_is_written_and_found_again(write: Write, tmp_path: Path) -> None:
    importer = Importer(f"memory://ingest-store-{tmp_path.name}", tmp_path / "home")
    path = write("events.csv", CSV)
    assert importer.run(path).rows() == WANTED
    assert importer.run(path).done.reused
