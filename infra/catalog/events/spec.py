"""spec: what must be said of an application's events: their types, whom they concern, and what fields they carry."""

from __future__ import annotations

import contextlib
import reprlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from infra.contracts.errors import InvalidRequest
from infra.contracts.events import MAX_CLOCK_SKEW, Event, Value
from infra.contracts.ids import ApplicationName, check_id

_SHOWN = 80


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A field that events of a type may carry. low, high: of numbers, both allowed; max_bytes: of text, in UTF-8."""

    dtype: Literal["int", "float", "text"]
    required: bool = False
    low: float = -1e15
    high: float = 1e15
    max_bytes: int = 256

    def check(self, name: str, value: object) -> Value:
        """The value, if it may be one. Raises InvalidRequest."""
        if self.dtype == "text":
            if not isinstance(value, str) or not value:
                raise InvalidRequest(f"{name} is {_shown(value)}; wanted text.")
            if _n_bytes(name, value) > self.max_bytes:
                raise InvalidRequest(f"{name} has {len(value.encode())} bytes; wanted at most {self.max_bytes}.")
            return value
        wanted = "a whole number" if self.dtype == "int" else "a number"
        kinds = (int,) if self.dtype == "int" else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise InvalidRequest(f"{name} is {_shown(value)}; wanted {wanted}.")
        if not self.low <= value <= self.high:  # nor is NaN
            raise InvalidRequest(f"{name} is {_shown(value)}; wanted {wanted} from {self.low:g} to {self.high:g}.")
        return value if self.dtype == "int" else float(value)


@dataclass(frozen=True, slots=True)
class EventType:
    """entities: the kinds that every such event concerns, in the order of their records. optional: those that it may concern."""

    entities: tuple[str, ...]
    fields: Mapping[str, FieldSpec] = field(default_factory=dict)
    optional: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EventSchema:
    """All that an application's events may say. An entity of kind `user` is the field `user_id`.

    fresh: the kinds whose own last events a request sees even before the worker has counted them. horizon: events that happened
    longer ago are refused: no feature looks back so far.
    """

    application: ApplicationName
    types: Mapping[str, EventType]
    fresh: frozenset[str]
    horizon: timedelta = timedelta(days=7)

    def parse(self, said: object, *, now: datetime) -> Event:
        """The event that a JSON object describes; without `event_id` it gets one, without `event_time` it happened now.

        Raises InvalidRequest naming the field: what was seen, and what is wanted.
        """
        if not isinstance(said, Mapping):
            raise InvalidRequest(f"An event is a JSON object; this is {_shown(said)}.")
        event_type = said.get("event_type")
        spec = self.types.get(event_type) if isinstance(event_type, str) else None
        if spec is None:
            raise InvalidRequest(f"event_type is {_shown(event_type)}; wanted one of {', '.join(sorted(self.types))}.")
        kinds = (*spec.entities, *spec.optional)
        known = {"event_id", "event_type", "event_time", *(f"{kind}_id" for kind in kinds), *spec.fields}
        foreign = sorted(_readable(str(name)[:_SHOWN]) for name in said if name not in known)
        if foreign:
            raise InvalidRequest(
                f"{', '.join(foreign[:5])}: no field of a {event_type}; wanted of {', '.join(sorted(known))}."
            )
        entities = {
            kind: _id(said, f"{kind}_id")
            for kind in kinds
            if kind in spec.entities or said.get(f"{kind}_id") is not None
        }
        values: dict[str, Value] = {}
        for name, one in spec.fields.items():
            if said.get(name) is not None:
                values[name] = one.check(name, said[name])
            elif one.required:
                raise InvalidRequest(f"{name} is missing; a {event_type} has one.")
        event_id = _id(said, "event_id") if said.get("event_id") is not None else uuid.uuid4().hex
        return Event(event_id, str(event_type), self._time(said.get("event_time"), now), entities, values)

    def _time(self, said: object, now: datetime) -> datetime:
        if said is None:
            return now
        moment: datetime | None = None
        if isinstance(said, str):
            with contextlib.suppress(
                ValueError, OverflowError
            ):  # the second: in UTC it is before year 1, or after 9999
                moment = _in_utc(datetime.fromisoformat(said))
        if moment is None:
            raise InvalidRequest(f"event_time is {_shown(said)}; wanted a moment with a zone: 2026-05-01T12:00:00Z.")
        if moment > now + MAX_CLOCK_SKEW:
            raise InvalidRequest(
                f"event_time {moment.isoformat()} is ahead of {now.isoformat()} by more than "
                f"{MAX_CLOCK_SKEW.total_seconds():.0f} s; wanted a past moment."
            )
        if moment < now - self.horizon:
            raise InvalidRequest(
                f"event_time {moment.isoformat()} is longer ago than {self.horizon.total_seconds() / 86400:g} days; "
                "import old events with the batch instead."
            )
        return moment


def _id(said: Mapping[object, object], name: str) -> str:
    value = said.get(name)
    if value is None:
        raise InvalidRequest(f"{name} is missing.")
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is {_shown(value)}; wanted text.")
    return check_id(value, what=name)


def _n_bytes(name: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name} holds a lone surrogate; wanted valid Unicode.") from error


def _in_utc(moment: datetime) -> datetime | None:
    return moment.astimezone(UTC) if moment.tzinfo is not None else None


class _Short(reprlib.Repr):
    """What was sent may be nested or long without end."""

    def repr_int(self, x: int, level: int) -> str:
        """Python itself writes no number of more than 4,300 digits."""
        return repr(x) if -(10**_SHOWN) < x < 10**_SHOWN else "a huge number"


_short = _Short()
_short.maxstring = _short.maxother = _SHOWN


def _shown(value: object) -> str:
    text = _short.repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _readable(text: str) -> str:
    """Without what cannot be sent back as UTF-8."""
    return text.encode(errors="backslashreplace").decode()
