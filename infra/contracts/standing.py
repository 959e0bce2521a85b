"""standing: what was said last of each entity of a kind and stands until something else is said: how it lies on a board.

A place is an entity and a value, its amount the microsecond at which that was said last; so late and doubled events change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_NOTHING = (-1, "")


def place_of(entity_id: str, value: str) -> str:
    """`<characters of the id>:<id><value>`: either may hold anything."""
    return f"{len(entity_id)}:{entity_id}{value}"


def newest(fields: Iterable[tuple[str, int]]) -> dict[str, tuple[int, str]]:
    """Entity -> (microseconds, value) of what was said last; of two at one microsecond the larger text."""
    found: dict[str, tuple[int, str]] = {}
    for place, at_us in fields:
        entity_id, value = _said(place)
        said = (at_us, value)
        if said > found.get(entity_id, _NOTHING):
            found[entity_id] = said
    return found


def forgettable(fields: Iterable[tuple[str, int]], *, usual: str, before_us: int) -> Iterator[str]:
    """The places that may go: what something else was said after, and what is usual and was said before that moment."""
    fields = list(fields)
    last = newest(fields)
    for place, at_us in fields:
        entity_id, value = _said(place)
        if last[entity_id] != (at_us, value) or (value == usual and at_us <= before_us):
            yield place


def _said(place: str) -> tuple[str, str]:
    length, _, rest = place.partition(":")
    return rest[: int(length)], rest[int(length) :]
