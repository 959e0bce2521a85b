"""Whatever an id or a time is, it arrives as it was written; fast ways agree with the slow one on generated data."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contracts.ids import MAX_ID_BYTES
from spark_jobs.ingest import blocks, delimited, parse, spill, times
from spark_jobs.ingest.delimited import Layout
from spark_jobs.ingest.inputs import InputFile
from spark_jobs.ingest.plan import make_plan
from tests.fixtures.proof import sized
from tests.unit.spark_jobs.ingest.conftest import NOW

IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | st.sampled_from(
    [
        "a:b",
        "{u}",
        "line\nbreak",
        "cr\rlf\r\n",
        "nul\0",
        '"',
        '""',
        "a,b",
        "x" * MAX_ID_BYTES,
        "ü" * 128,
        " ",
        "\u2028",
        "\x1f",
    ]
)
PAIRS = st.lists(st.tuples(IDS, IDS), min_size=1, max_size=20)
TIME = 1714557600


def _parsed(folder: Path) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for batch in parse.batches(make_plan(str(folder)), now=NOW):
        assert batch.clean.rejected == () and batch.rows.faults == ()
        pairs += zip(batch.clean.user_ids.to_pylist(), batch.clean.item_ids.to_pylist(), strict=True)
    return pairs


@settings(max_examples=sized(60, full=1200), deadline=None)
@given(pairs=PAIRS, kind=st.sampled_from(["csv", "jsonl", "parquet"]))
def test_ids_of_any_unicode_arrive_as_they_are(pairs: list[tuple[str, str]], kind: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"e.{kind}"
        if kind == "csv":
            out = io.StringIO(newline="")
            writer = csv.writer(out, quoting=csv.QUOTE_ALL)
            writer.writerows([("user", "item", "time"), *((user, item, str(TIME)) for user, item in pairs)])
            path.write_bytes(out.getvalue().encode())
        elif kind == "jsonl":
            lines = (json.dumps({"user": user, "item": item, "time": TIME}) for user, item in pairs)
            path.write_text("\n".join(lines))
        else:
            users, items = zip(*pairs, strict=True)
            pq.write_table(pa.table({"user": users, "item": items, "time": [TIME] * len(pairs)}), path)
        assert _parsed(Path(name)) == pairs


LINES = st.lists(
    st.text(st.sampled_from('ab,"\n\r'), max_size=12) | st.sampled_from(["1,2,3", "4,5,6", '"7","8","9"', "\xff,1,2"]),
    max_size=12,
)


@settings(max_examples=sized(80, full=1600), deadline=None)
@given(lines=LINES, block_bytes=st.integers(1, 40), latin=st.booleans())
def test_no_line_is_lost_or_counted_twice_wherever_a_block_ends(
    lines: list[str], block_bytes: int, latin: bool
) -> None:
    data = "\n".join(lines).encode("latin-1" if latin else "utf-8")
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        path = Path(name) / "e.csv"
        path.write_bytes(data)
        file = InputFile(LocalFileSystem(), str(path), "e.csv", len(data))

        def read() -> tuple[list[tuple[int, list[str]]], set[tuple[int, str]]]:
            rows, faults = [], []
            for part in delimited.read(file, Layout(",", 3, header=False), {"a": 0, "b": 1, "c": 2}):
                values = zip(*(column.to_pylist() for column in part.columns.values()), strict=True)
                rows += list(zip(part.lines.tolist(), map(list, values), strict=True))
                faults += [(fault.line, fault.reason.value) for fault in part.faults]
            assert len(faults) == len(set(faults)), "a line was rejected twice"
            return rows, set(faults)

        whole = read()
        patch.setattr(blocks.Blocks.__init__, "__kwdefaults__", {"advance": lambda n: None, "block_bytes": block_bytes})
        assert read() == whole
        numbers = [line for line, _ in whole[0]] + [line for line, _ in whole[1]]
        assert len(numbers) == len(set(numbers)) and all(1 <= line <= data.count(b"\n") + 1 for line in numbers)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1714557600", "2024-05-01T10:00:00"),
        ("1714557600.25", "2024-05-01T10:00:00.250"),
        ("1714557600123", "2024-05-01T10:00:00.123"),
        ("1714557600123456", "2024-05-01T10:00:00.123456"),
        ("1714557600123456789", "2024-05-01T10:00:00.123456"),
        ("1.7145576e9", "2024-05-01T10:00:00"),
        ("20240501", "2024-05-01T00:00:00"),
        ("2024-05-01", "2024-05-01T00:00:00"),
        ("2024-05-01 10:00", "2024-05-01T10:00:00"),
        ("2024-05-01T10:00:00.5Z", "2024-05-01T10:00:00.500"),
        ("2024-05-01T12:00:00+02:00", "2024-05-01T10:00:00"),
        ("2024-05-01T10:00:00.123456789Z", "2024-05-01T10:00:00.123456"),
        (" 2024-05-01T10:00:00 ", "2024-05-01T10:00:00"),
        ("yesterday", None),
        ("2024-13-01", None),
        ("", None),
        ("12:30", None),
    ],
)
def test_a_time_is_understood_alone_and_among_others(text: str, wanted: str | None) -> None:
    moment = None if wanted is None else round(datetime.fromisoformat(wanted).replace(tzinfo=UTC).timestamp() * 1e6)
    assert times.one(text) == moment
    for others in ([], ["never"], ["2024-05-01T00:00:00Z", "5"]):
        found, known = times.micros(pa.array([text, *others], pa.string()))
        assert (int(found[0]) if known[0] else None) == moment


@settings(max_examples=sized(60, full=1200), deadline=None)
@given(moments=st.lists(st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)), min_size=1, max_size=9))
def test_whole_columns_of_times_agree_with_one_at_a_time(moments: list[datetime]) -> None:
    wanted = [(moment - datetime(1970, 1, 1)) // timedelta(microseconds=1) for moment in moments]
    forms = [
        [moment.isoformat() for moment in moments],
        [moment.isoformat(" ") + "+00:00" for moment in moments],
        [str(us) for us in wanted],
    ]
    for texts in forms:
        assert times.micros(pa.array(texts, pa.string()))[0].tolist() == wanted
        assert [times.one(text) for text in texts] == wanted


@settings(max_examples=sized(30, full=600), deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 400), file_rows=st.sampled_from([1, 50, 10**6]))
def test_spilled_events_come_back_sorted_without_duplicates_each_user_in_one_file(
    seed: int, n: int, file_rows: int
) -> None:
    rng = np.random.default_rng(seed)
    events = np.zeros(n, spill.EVENT)
    for name, most in (("user", 150), ("item", 3), ("time_us", 3), ("type", 2)):
        events[name] = rng.integers(0, most, n)
    events["line"], events["value"] = np.arange(n), np.arange(n)
    again: list[int] = []
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        with spill.Spill(out / "spill") as spilled:
            spilled.add(events[: n // 2])
            spilled.add(events[n // 2 :])
            written = spill.write_events(
                spilled,
                out,
                n_users=150,
                n_items=3,
                types=["a", "b"],
                on_duplicates=lambda found: again.extend(found["line"].tolist()),
                advance=lambda n: None,
                file_rows=file_rows,
            )
        tables = [pq.read_table(out / file) for file in written.files]
    first: dict[tuple[int, ...], int] = {}
    for event in events:
        key = tuple(int(event[name]) for name in ("user", "item", "time_us", "type"))
        first.setdefault(key, int(event["line"]))
    assert sorted(again) == sorted(set(range(n)) - set(first.values())), "the first in the source stays"
    assert sorted(int(v) for table in tables for v in table["value"].to_pylist()) == sorted(first.values())
    owners = [set(table["user_index"].to_pylist()) for table in tables]
    assert sum(map(len, owners)) == len(set().union(*owners))
    for table in tables:
        keys = list(zip(table["user_index"].to_pylist(), table["event_time"].to_pylist(), strict=True))
        assert keys == sorted(keys)
    assert written.events == len(first) and written.n_events.sum() == len(first)
