"""delimited: CSV, TSV and the `::` files of MovieLens as columns of text.

A block without quotes, carriage returns or broken UTF-8 is parsed by Arrow in one go. Any other is taken apart record by
record: a quoted value may hold line breaks, and a quote that is never closed must cost its own line and no other.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from infra.contracts.errors import DataRefused
from spark_jobs.ingest.blocks import Block, Blocks, LineText, shown
from spark_jobs.ingest.inputs import Advance, InputFile, reading
from spark_jobs.ingest.rows import Fault, Reason, Rows

LONGEST_RECORD_LINES = 64
"""A quoted value that spans more lines than this counts as a quote that was never closed."""

_DELIMITERS = (",", "\t", ";", "|")
_HEAD_BYTES = 1 << 16
_UNIT_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file's lines are cut. width: fields a line. latin_1: lines that are no UTF-8 are read as Latin-1 instead."""

    delimiter: str
    width: int
    header: bool
    quoted: bool = True
    latin_1: bool = False


def first_record(file: InputFile, *, delimiter: str = "", quoted: bool = True) -> tuple[list[str], str]:
    """The fields of the first line, and the delimiter: that of the usual four which the line has most of, unless given."""
    with reading(file) as stream:
        head = stream.read(_HEAD_BYTES)
    if not head.strip():
        raise DataRefused(f"{file.name} is empty.", mend="Wanted a line of column names and a line an event.")
    line = head.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].rstrip(b"\r").decode("utf-8", errors="replace")
    delimiter = delimiter or max(_DELIMITERS, key=line.count)
    if not quoted:
        return line.split(delimiter), delimiter
    try:
        return next(csv.reader([line], delimiter=delimiter)), delimiter
    except (csv.Error, StopIteration):
        return line.split(delimiter), delimiter


def read(
    file: InputFile, layout: Layout, wanted: Mapping[str, int], *, advance: Advance = lambda n: None
) -> Iterator[Rows]:
    """wanted: field -> position from 0. Blank lines count for nothing."""
    table = _Table(file, layout, dict(wanted))
    blocks = Blocks(file, advance=advance)
    for block in blocks:
        if block.line == 1 and layout.header:
            _, _, rest = block.data.partition(b"\n")
            block = Block(rest, 2, block.last)
        if not block.data.strip(b"\r\n"):
            continue
        plain = table.plain(block.data)
        if plain is not None:
            yield table.at_once(plain, block.line)
        else:
            rows, open_tail = table.by_record(block)
            blocks.keep(open_tail)
            if len(rows) or rows.faults:
                yield rows


@dataclass(frozen=True, slots=True)
class _Table:
    file: InputFile
    layout: Layout
    wanted: dict[str, int]

    def plain(self, data: bytes) -> bytes | None:
        """The block as Arrow may parse it: one byte between fields, `\\n` between lines, no blank line; None where it is not so."""
        if self.layout.quoted and b'"' in data:
            return None
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        if b"\r" in data or b"\n\n" in data or data.startswith(b"\n"):
            return None
        try:
            data.decode()
        except UnicodeDecodeError:
            return None
        if len(self.layout.delimiter) == 1:
            return data
        if _UNIT_SEPARATOR.encode() in data:
            return None
        return data.replace(self.layout.delimiter.encode(), _UNIT_SEPARATOR.encode())

    def at_once(self, data: bytes, line: int) -> Rows:
        faults: list[Fault] = []
        text = LineText(data)

        def refuse(row: pa_csv.InvalidRow) -> str:
            faults.append(Fault(line + row.number - 1, Reason.FIELD_COUNT, self._as_stored(shown(row.text))))
            return "skip"

        delimiter = self.layout.delimiter if len(self.layout.delimiter) == 1 else _UNIT_SEPARATOR
        names = [str(number) for number in range(self.layout.width)]
        table = pa_csv.read_csv(
            pa.BufferReader(data),
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
            parse_options=pa_csv.ParseOptions(
                delimiter=delimiter,
                quote_char=False,
                double_quote=False,
                ignore_empty_lines=False,
                invalid_row_handler=refuse,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=sorted({str(number) for number in self.wanted.values()}),
                strings_can_be_null=False,
                check_utf8=False,  # `plain` has decoded it
            ),
        )
        n_lines = data.count(b"\n") + (not data.endswith(b"\n"))
        lines = np.arange(line, line + n_lines)
        if faults:
            lines = np.delete(lines, [fault.line - line for fault in faults])
        columns = {field: _one(table[str(number)]) for field, number in self.wanted.items()}
        return Rows(
            self.file.name, lines, columns, lambda k: self._as_stored(text(int(lines[k]) - line)), tuple(faults)
        )

    def _as_stored(self, text: str) -> str:
        return text if len(self.layout.delimiter) == 1 else text.replace(_UNIT_SEPARATOR, self.layout.delimiter)

    def by_record(self, block: Block) -> tuple[Rows, bytes]:
        """The rows, and the bytes at the end that belong to a record which the next block closes."""
        faults: list[Fault] = []
        texts, numbers = self._decode(block, faults)
        records, starts, open_from = self._records(texts, numbers, faults, last=block.last)
        tail = b""
        if open_from < len(texts):
            tail = b"\n".join(block.data.split(b"\n")[numbers[open_from] - block.line :])
            faults = [fault for fault in faults if fault.line < numbers[open_from]]
        good, lines = self._fields(records, starts, faults)
        columns = {
            field: pa.array([fields[number] for fields in good], pa.string()) for field, number in self.wanted.items()
        }
        text_of = dict(zip(starts, records, strict=True))
        faults.sort(key=lambda fault: fault.line)
        rows = Rows(
            self.file.name,
            np.array(lines, np.int64),
            columns,
            lambda k: shown(text_of[lines[k]]),
            tuple(faults),
        )
        return rows, tail

    def _decode(self, block: Block, faults: list[Fault]) -> tuple[list[str], list[int]]:
        """The lines that are text, and their numbers."""
        data = block.data.removesuffix(b"\n")
        try:
            texts = data.decode().split("\n")
            return texts, list(range(block.line, block.line + len(texts)))
        except UnicodeDecodeError:
            pass
        texts, numbers = [], []
        for number, raw in enumerate(data.split(b"\n"), block.line):
            try:
                texts.append(raw.decode())
            except UnicodeDecodeError:
                if not self.layout.latin_1:
                    faults.append(Fault(number, Reason.NOT_UTF8, shown(raw.decode(errors="backslashreplace"))))
                    continue
                texts.append(raw.decode("latin-1"))
            numbers.append(number)
        return texts, numbers

    def _records(
        self, texts: list[str], numbers: list[int], faults: list[Fault], *, last: bool
    ) -> tuple[list[str], list[int], int]:
        """Lines joined where a quote is open, the line that each begins at, and from which line on the end is still open."""
        if not self.layout.quoted or not any(text.count('"') & 1 for text in texts):
            kept = [at for at, text in enumerate(texts) if text.strip("\r")]
            return [texts[at].removesuffix("\r") for at in kept], [numbers[at] for at in kept], len(texts)
        records: list[str] = []
        starts: list[int] = []
        at = 0
        while at < len(texts):
            end, is_open = at + 1, bool(texts[at].count('"') & 1)
            while is_open and end < len(texts) and end - at < LONGEST_RECORD_LINES:
                is_open ^= bool(texts[end].count('"') & 1)
                end += 1
            if is_open and end == len(texts) and end - at < LONGEST_RECORD_LINES and not last:
                return records, starts, at
            record = "\n".join(texts[at:end]).removesuffix("\r")
            if is_open or (end - at > 1 and self._cut(record) is None):
                faults.append(Fault(numbers[at], Reason.TORN_QUOTE, shown(texts[at])))
                end = at + 1
            elif record.strip("\r"):
                records.append(record)
                starts.append(numbers[at])
            at = end
        return records, starts, len(texts)

    def _cut(self, record: str) -> list[str] | None:
        """The record's fields where it has as many as the table; else None."""
        try:
            fields = next(csv.reader([record], delimiter=self.layout.delimiter, strict=True), [])
        except csv.Error:
            return None
        return fields if len(fields) == self.layout.width else None

    def _fields(self, records: list[str], starts: list[int], faults: list[Fault]) -> tuple[list[list[str]], list[int]]:
        width, delimiter = self.layout.width, self.layout.delimiter
        if not self.layout.quoted:
            cut = [record.split(delimiter) for record in records]
        else:
            try:
                cut = list(csv.reader(records, delimiter=delimiter, strict=True))
            except csv.Error:
                cut = []
            if len(cut) != len(records):  # one of them is torn, and took its neighbours along
                return self._fields_one_by_one(records, starts, faults)
        good, lines = [], []
        for record, line, fields in zip(records, starts, cut, strict=True):
            if len(fields) == width:
                good.append(fields)
                lines.append(line)
            else:
                faults.append(Fault(line, Reason.FIELD_COUNT, shown(record)))
        return good, lines

    def _fields_one_by_one(
        self, records: list[str], starts: list[int], faults: list[Fault]
    ) -> tuple[list[list[str]], list[int]]:
        good, lines = [], []
        for record, line in zip(records, starts, strict=True):
            fields = self._cut(record)
            if fields is not None:
                good.append(fields)
                lines.append(line)
            else:
                faults.append(Fault(line, self._why(record), shown(record)))
        return good, lines

    def _why(self, record: str) -> Reason:
        try:
            next(csv.reader([record], delimiter=self.layout.delimiter, strict=True), [])
        except csv.Error:
            return Reason.TORN_QUOTE
        return Reason.FIELD_COUNT


def _one(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        return combined.chunk(0) if combined.num_chunks else pa.array([], column.type)
    return combined
