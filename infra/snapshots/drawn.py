"""drawn: what differs between two snapshots, as a table and as bars in a terminal."""

from __future__ import annotations

from rich.table import Table

from infra.config import console
from infra.snapshots.diff import TOP, Difference, Histogram

_BARS = " ▁▂▃▄▅▆▇█"


def show_difference(found: Difference) -> None:
    """To whoever watches."""
    console.notes.print(_table(found))
    console.notes.print(_pictures(found))


def bars(shares: tuple[float, ...], *, tallest: float) -> str:
    """One block a share, the tallest one full; a share above 0 is never drawn as nothing."""
    if not tallest:
        return ""
    steps = [min(len(_BARS) - 1, max(round(share / tallest * (len(_BARS) - 1)), int(share > 0))) for share in shares]
    return "".join(_BARS[step] for step in steps)


def _pictures(found: Difference) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("how they are spread", "", "from", "", "to"):
        table.add_column(column, justify="right" if column in {"from", "to"} else "left", no_wrap=True)
    for title, histogram, form in (
        (f"score, first {TOP[0]}", found.scores, ".2f"),
        (f"popularity, first {TOP[0]}", found.popularities, ".2f"),
        (f"users by overlap@{TOP[0]}", found.overlaps, ".0%"),
    ):
        _add(table, title, histogram, form=form, sides=(found.before.version, found.after.version))
    return table


def _add(table: Table, title: str, histogram: Histogram, *, form: str, sides: tuple[str, str]) -> None:
    """A line a side, both to one scale."""
    tallest = max((*histogram.before, *histogram.after), default=0.0)
    drawn = [(side, shares) for side, shares in zip(sides, (histogram.before, histogram.after), strict=True) if shares]
    for number, (side, shares) in enumerate(drawn):
        low, high = (format(value, form) for value in (histogram.low, histogram.high))
        told = side if len(drawn) > 1 else ""
        table.add_row("" if number else title, told, low, bars(shares, tallest=tallest), high)


def _table(found: Difference) -> Table:
    before, after = found.before, found.after
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", before.version, after.version, "difference"):
        table.add_column(column, justify="left" if not column else "right")
    rows = [
        ("users", f"{before.users:,}", f"{after.users:,}", f"{after.users - before.users:+,}"),
        ("users compared", f"{before.compared:,}", f"{after.compared:,}", f"{found.users_in_both:,} in both"),
        ("users who lost, got a list", f"{found.users_left:,}", f"{found.users_new:,}", ""),
        ("items", f"{before.items:,}", f"{after.items:,}", f"{after.items - before.items:+,}"),
        _shift("items shown to anybody", before.items_shown_fraction, after.items_shown_fraction, form=".1%"),
        _shift("length of lists", before.list_length_mean, after.list_length_mean, form=",.1f"),
        _shift(f"score, first {TOP[0]}", before.top_score_mean, after.top_score_mean, form=".3f"),
        ("", "", "", f"PSI {found.score_psi:.3f}"),
        _shift(f"popularity, first {TOP[0]}", before.popularity_mean, after.popularity_mean, form=".3f"),
        ("", "", "", f"PSI {found.popularity_psi:.3f}"),
        *((f"overlap@{k}", "", "", f"{share:.1%}") for k, share in found.overlap_mean.items()),
        (f"users with nothing in common @{TOP[0]}", "", "", f"{found.disjoint_fraction:.1%}"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def _shift(name: str, before: float, after: float, *, form: str) -> tuple[str, str, str, str]:
    return name, format(before, form), format(after, form), format(after - before, f"+{form}")
