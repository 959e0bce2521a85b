"""terms: which part of a log's life an offset is of: one that lost records and grew again is not taken for one that went on.

A term is what a log takes between two starts of what keeps it. The log remembers at which offset each began. Whoever reads keeps
the term it read last beside its offset; once the log is in another one, that offset must not lie beyond where the reader's ended.
"""

from __future__ import annotations

from typing import NamedTuple

from infra.eventlog.protocol import Extent, LogLost, Terms

_MEND = (
    "The log came back without records that it had taken, and has taken others since. Let them go on behind what was read: "
    "python -m infra.nearline skip --shard N --reason WHY"
)


class Read(NamedTuple):
    """How far somebody has read. term: the log's when it was read last; "" where that is not known."""

    offset: int
    term: str


def holds_upto(terms: Terms, term: str, tip: int) -> int:
    """The highest offset at which the log still has what it had in that term; the tip where nothing speaks against it.

    0 where the log knows nothing of the term; the tip for the term "".
    """
    if not term:
        return tip
    began = max((one.first for one in terms if one.id == term), default=None)
    if began is None:
        return 0
    return min([tip, *(one.first - 1 for one in terms if one.first > began)])


def may_read_on(extent: Extent, read: Read) -> bool:
    """Whether whoever has read so far may read on: the log has all that comes next, behind what it was then."""
    return extent.first - 1 <= read.offset <= holds_upto(extent.terms, read.term, extent.tip)


def require_same(shard: int, terms: Terms, read: Read) -> str:
    """The term that the log is in now, "" where it has none. Raises LogLost where it no longer has what was read."""
    kept = holds_upto(terms, read.term, read.offset)
    if kept < read.offset:
        raise LogLost(
            f"Shard {shard} of the log is another one beyond {kept}; it was read up to {read.offset} before.",
            mend=_MEND,
        )
    return terms[-1].id if terms else ""
