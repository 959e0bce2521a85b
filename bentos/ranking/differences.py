"""differences: two answers to one request, compared to the bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from infra.contracts.decisions import Decision


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs. kind: items, scores, list, features, nearline or stages; text: what was logged, what came out.

    values: how many feature values it is about.
    """

    kind: str
    text: str
    values: int = 0


@dataclass(frozen=True, slots=True)
class Compared:
    """values: feature values that were compared, nearline ones and those of the items' vectors."""

    values: int
    differences: tuple[Difference, ...]

    @property
    def mismatches(self) -> int:
        """Feature values that differ."""
        return sum(one.values for one in self.differences)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the differences, each once."""
        return tuple(dict.fromkeys(one.kind for one in self.differences))


def compare(logged: Decision, made: Decision) -> Compared:
    """What of `made` is not as it was logged; not the times, nor what stages said of their failures."""
    names = logged.nearline.keys()  # what was declared since then was not served
    differences = [
        *_list(logged, made),
        *_vectors(logged, made),
        *_nearline(logged, made, sorted(names)),
        *_stages(logged, made),
    ]
    return Compared(len(names) + logged.features.size, tuple(differences))


def _list(logged: Decision, made: Decision) -> Iterator[Difference]:
    if made.items != logged.items:
        yield Difference("items", _first_unlike(logged.items, made.items))
    if made.scores.tobytes() != logged.scores.tobytes():
        yield Difference("scores", _first_unlike(logged.scores.tolist(), made.scores.tolist()))
    if made.list_digest != logged.list_digest:
        yield Difference("list", f"its digest was {logged.list_digest[:12]}, is {made.list_digest[:12]}")


def _vectors(logged: Decision, made: Decision) -> Iterator[Difference]:
    was, now = logged.features, made.features
    if was.shape != now.shape or logged.columns != made.columns:
        text = f"vectors were {was.shape} of {len(logged.columns)} columns, are {now.shape} of {len(made.columns)}"
        yield Difference("features", text, was.size)
        return
    unlike = was.view(np.uint32) != now.view(np.uint32)
    for column in np.flatnonzero(unlike.any(axis=0)).tolist():
        row = int(np.argmax(unlike[:, column]))
        text = f"{logged.columns[column]} of {logged.items[row]} was {was[row, column]!r}, is {now[row, column]!r}"
        yield Difference("features", text, int(unlike[:, column].sum()))


def _nearline(logged: Decision, made: Decision, names: Sequence[str]) -> Iterator[Difference]:
    for name in names:
        was, now = logged.nearline.get(name), made.nearline.get(name)
        if was != now:
            yield Difference("nearline", f"{name} was {was}, is {now}", 1)


def _stages(logged: Decision, made: Decision) -> Iterator[Difference]:
    if (made.decided_by, made.degraded) != (logged.decided_by, logged.degraded):
        was, now = (f"{one.decided_by}{', degraded' if one.degraded else ''}" for one in (logged, made))
        yield Difference("stages", f"decided by {was}, is {now}")
    for name in made.skipped.keys() - logged.skipped.keys():
        yield Difference("stages", f"{name} fails now: {made.skipped[name]}")


def _first_unlike(was: Sequence[object], now: Sequence[object]) -> str:
    pairs = zip(was, now, strict=False)
    place = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(was), len(now)))
    then, here = (items[place] if place < len(items) else "nothing" for items in (was, now))
    return f"place {place + 1} was {then}, is {here}"
