"""blocks: a text file as blocks of whole lines, so that columns can be parsed at once and every line keeps its number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from infra.contracts.errors import DataRefused
from spark_jobs.ingest.inputs import Advance, InputFile, reading

BLOCK_BYTES = 8 << 20
LONGEST_LINE_BYTES = 16 << 20
"""A file without a line break for so long is no table."""

SHOWN_CHARACTERS = 500
"""So much of a bad line goes into the rejects file."""

_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines. line: the number of the first. last: the file ends with it."""

    data: bytes
    line: int
    last: bool


class Blocks:
    """Iterate to read. What is handed to `keep` comes again, with more behind it."""

    def __init__(self, file: InputFile, *, advance: Advance = lambda n: None, block_bytes: int = BLOCK_BYTES) -> None:
        self._file, self._advance, self._block_bytes = file, advance, block_bytes
        self._kept = b""

    def keep(self, tail: bytes) -> None:
        """The last lines of the current block that only make sense with what follows."""
        self._kept = tail

    def __iter__(self) -> Iterator[Block]:
        with reading(self._file, advance=self._advance) as stream:
            held, line, first = b"", 1, True
            while True:
                chunk = stream.read(self._block_bytes)
                held += chunk
                if first:
                    held, first = self._without_bom(held), False
                cut = held.rfind(b"\n") + 1 if chunk else len(held)
                if chunk and not cut:
                    self._refuse_endless(held)
                    continue
                if cut:
                    self._kept = b""
                    data = held[:cut]
                    yield Block(data, line, last=not chunk)
                    line += data.count(b"\n") - self._kept.count(b"\n")
                    held = self._kept + held[cut:]
                if not chunk:
                    return

    def _without_bom(self, start: bytes) -> bytes:
        if start.startswith(_UTF16_BOMS):
            raise DataRefused(f"{self._file.name} is UTF-16; wanted UTF-8.", mend="Save it as UTF-8.")
        return start.removeprefix(_UTF8_BOM)

    def _refuse_endless(self, held: bytes) -> None:
        if len(held) > LONGEST_LINE_BYTES:
            raise DataRefused(
                f"{self._file.name} has no line break in {LONGEST_LINE_BYTES >> 20} MiB: it is no table of lines.",
                mend="Name its --format, or leave the file out.",
            )


class LineText:
    """Finds a line of a block again, for the few that a person must see."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._ends: list[int] | None = None

    def __call__(self, number: int) -> str:
        """The line of that number, counted from 0 in the block."""
        if self._ends is None:
            self._ends = [*np.flatnonzero(np.frombuffer(self._data, np.uint8) == 10).tolist(), len(self._data)]
        start = self._ends[number - 1] + 1 if number else 0
        return shown(self._data[start : self._ends[number]].decode(errors="replace"))


def shown(text: str) -> str:
    """As much of a line as the rejects file keeps."""
    text = text.rstrip("\r\n")
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
