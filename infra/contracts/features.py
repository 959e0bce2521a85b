"""features: what a nearline feature is, how an event changes an entity's state, and what the state is worth at a moment.

A state is one flat map from field to integer, and there are two ways to change a field: fields that begin with `+` are added
to, fields that begin with `^` take the larger of two values. Both commute, so late, early and interleaved events lead to the
same state, and every engine that can group by field and add or take a maximum computes it. All that depends on the clock
happens when a state is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cached_property

from infra.contracts import standing
from infra.contracts.errors import ContractViolation
from infra.contracts.events import Record
from infra.contracts.sketches import estimate, sketch_place

State = Mapping[str, int]
Deltas = dict[tuple[str, str], dict[str, int]]
"""(kind, entity id) -> field -> what is added to it, or what it is raised to."""

FeatureValue = int | tuple[str, ...] | tuple[tuple[str, int], ...]

BOARD = ""
"""The entity id under which a shard keeps the TOP features of all its entities of a kind; no entity has an empty id."""

_MINUTE = timedelta(seconds=60)
_US = timedelta(microseconds=1)


class Aggregation(StrEnum):
    """What is made of an entity's events."""

    COUNT = "count"
    """How many within the window."""
    SUM = "sum"
    """The sum of a whole-number field within the window."""
    DISTINCT = "distinct"
    """How many different values of a field within the window, estimated; exact in time."""
    LAST = "last"
    """The newest k different values of a field within the window, newest first."""
    SESSION = "session"
    """How many since the last pause of at least `gap`; a session is at most `window` long."""
    TOP = "top"
    """The k entities of the kind with the most events within the window, and how many: kept a shard, merged by the reader."""
    NEWEST = "newest"
    """The k entities of the kind whose last event within the window is newest, newest first: kept as TOP is."""
    STANDING = "standing"
    """The entities of the kind of which a field's last value, however old, is another than `usual`: kept as TOP is."""


_RANKED = (Aggregation.TOP, Aggregation.NEWEST)
_BOARDS = (*_RANKED, Aggregation.STANDING)
_TIMED = (Aggregation.DISTINCT, Aggregation.LAST, Aggregation.NEWEST, Aggregation.STANDING)
_OF = (Aggregation.SUM, Aggregation.DISTINCT, Aggregation.LAST, Aggregation.STANDING)


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """One feature of one kind of entity, declared once for every engine and every reader.

    events: the event types that count. window: how far back a value looks; COUNT, SUM, SESSION and TOP count in buckets and take
    the bucket that the window begins in as a whole, up to the bucket of now. DISTINCT, LAST and NEWEST know when a value came last,
    by the millisecond; one that came ahead of the reader's clock counts, for when it came before is not known any more. STANDING
    looks back without end; its window is how long it is remembered that the usual was said, against events that come late. of: the
    field that SUM adds, DISTINCT tells apart, LAST lists and STANDING keeps. k: of LAST, TOP and NEWEST. gap: of SESSION. usual: of
    STANDING, what is as if nothing was said. valid: values outside are taken for the nearer end. default: without state.
    """

    name: str
    entity: str
    aggregation: Aggregation
    events: frozenset[str]
    window: timedelta
    unit: str
    of: str = ""
    k: int = 0
    gap: timedelta = timedelta(0)
    usual: str = ""
    bucket: timedelta = _MINUTE
    valid: tuple[int, int] = (0, 2**31 - 1)

    def __post_init__(self) -> None:
        listed = self.aggregation is Aggregation.LAST or self.aggregation in _RANKED
        wrong = [
            text
            for text, is_wrong in (
                ("events is empty", not self.events),
                ("window is shorter than bucket", self.window < self.bucket or self.bucket <= timedelta(0)),
                ("of is wanted by sum, distinct, last and standing alone", (self.aggregation in _OF) != bool(self.of)),
                ("usual is of standing alone", bool(self.usual) and self.aggregation is not Aggregation.STANDING),
                ("k is wanted by last, top and newest alone", listed != (self.k > 0)),
                (
                    "gap is wanted by session alone",
                    (self.aggregation is Aggregation.SESSION) != (self.gap > timedelta(0)),
                ),
                ("gap is shorter than bucket", timedelta(0) < self.gap < self.bucket),
                ("valid is empty", self.valid[0] > self.valid[1]),
            )
            if is_wrong
        ]
        if wrong:
            raise ContractViolation(f"The feature {self.entity}.{self.name} cannot be: {'; '.join(wrong)}.")

    @property
    def dtype(self) -> str:
        """`int64`, `list[str]` (LAST, NEWEST, STANDING) or `list[(str, int64)]` (TOP)."""
        if self.aggregation in (Aggregation.LAST, Aggregation.NEWEST, Aggregation.STANDING):
            return "list[str]"
        return "list[(str, int64)]" if self.aggregation is Aggregation.TOP else "int64"

    @property
    def default(self) -> FeatureValue:
        """The value of an entity of which nothing was seen."""
        empty: tuple[str, ...] = ()
        return empty if self.dtype.startswith("list") else max(self.valid[0], min(0, self.valid[1]))

    @cached_property
    def _family(self) -> str:
        return "count" if self.aggregation is Aggregation.SESSION else self.aggregation.value

    @cached_property
    def code(self) -> str:
        """What the fields of this feature's state are called by: equal for features that read the same state, new where what is
        counted changes, so that old state is never taken for new."""
        parts = [self.entity, self._family, sorted(self.events), self.of, self.bucket_us]
        digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=4).hexdigest()
        return digest[:6]

    @cached_property
    def bucket_us(self) -> int:
        """Microseconds a bucket."""
        return self.bucket // _US

    @cached_property
    def window_us(self) -> int:
        """Microseconds the window reaches back."""
        return self.window // _US

    def value(self, state: State, now_us: int) -> FeatureValue:
        """The value at a moment: a pure function of the state and the clock."""
        return self._value(Fields(state).of(self.code), now_us)

    def _value(self, fields: Sequence[tuple[str, int]], now_us: int) -> FeatureValue:
        match self.aggregation:
            case Aggregation.COUNT | Aggregation.SUM:
                return self._clipped(self._in_window(fields, now_us))
            case Aggregation.SESSION:
                return self._clipped(self._session(fields, now_us))
            case Aggregation.DISTINCT:
                return self._clipped(estimate(fields, since_ms=self._since_ms(now_us)))
            case Aggregation.LAST | Aggregation.NEWEST:
                return tuple(member for _, member in self._members(fields, now_us)[: self.k])
            case Aggregation.TOP:
                counts = self._board(fields, now_us)
                return tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[: self.k])
            case Aggregation.STANDING:
                return tuple(sorted(self._standing(fields)))

    def standing(self, fields: Fields) -> dict[str, str]:
        """Of STANDING, by entity of one shard: what stands, where it is not the usual."""
        return self._standing(fields.of(self.code))

    def _standing(self, fields: Iterable[tuple[str, int]]) -> dict[str, str]:
        return {entity: value for entity, (_, value) in standing.newest(fields).items() if value != self.usual}

    def board(self, of_shard: Fields, now_us: int) -> dict[str, int]:
        """The members of one shard that have events within the window: how many (TOP), or the last one's millisecond (NEWEST)."""
        fields = of_shard.of(self.code)
        if self.aggregation is Aggregation.NEWEST:
            return {member: at_ms for at_ms, member in self._members(fields, now_us)}
        return self._board(fields, now_us)

    def _clipped(self, value: int) -> int:
        low, high = self.valid
        return min(max(value, low), high)

    def _buckets(self, now_us: int) -> tuple[int, int]:
        """The first and the last bucket that count at a moment."""
        return (now_us - self.window_us) // self.bucket_us, now_us // self.bucket_us

    def _since_ms(self, now_us: int) -> int:
        """After which millisecond a value that came last counts."""
        return (now_us - self.window_us) // 1000

    def _in_window(self, fields: Iterable[tuple[str, int]], now_us: int) -> int:
        first, last = self._buckets(now_us)
        return sum(amount for bucket, amount in fields if first <= int(bucket) <= last)

    def _session(self, fields: Iterable[tuple[str, int]], now_us: int) -> int:
        first, last = self._buckets(now_us)
        counts = {int(bucket): amount for bucket, amount in fields if first <= int(bucket) <= last}
        pause = self.gap // self.bucket
        total, at = 0, last
        for bucket in sorted(counts, reverse=True):
            if at - bucket > pause:
                break
            total, at = total + counts[bucket], bucket
        return total

    def _members(self, fields: Iterable[tuple[str, int]], now_us: int) -> list[tuple[int, str]]:
        """(milliseconds, member) within the window, newest first."""
        since_ms = self._since_ms(now_us)
        return sorted(((at, member) for member, at in fields if at > since_ms), reverse=True)

    def _board(self, fields: Iterable[tuple[str, int]], now_us: int) -> dict[str, int]:
        first, last = self._buckets(now_us)
        counts: dict[str, int] = {}
        for place, amount in fields:
            bucket, _, member = place.partition(":")
            if first <= int(bucket) <= last:
                counts[member] = counts.get(member, 0) + amount
        return counts

    def _stale(self, fields: Sequence[tuple[str, int]], now_us: int) -> Iterator[str]:
        """The fields that no value at this moment or later depends on."""
        first, _ = self._buckets(now_us)
        since_ms = self._since_ms(now_us)
        match self.aggregation:
            case Aggregation.DISTINCT:
                yield from (place for place, at_ms in fields if at_ms <= since_ms)
            case Aggregation.LAST | Aggregation.NEWEST:
                kept = {member for _, member in self._members(fields, now_us)[: self.k]}
                yield from (member for member, _ in fields if member not in kept)
            case Aggregation.STANDING:
                yield from standing.forgettable(fields, usual=self.usual, before_us=now_us - self.window_us)
            case _:
                yield from (place for place, _ in fields if int(place.partition(":")[0]) < first)


class Fields:
    """A state's fields by the code of their feature; as good as the state for whatever reads it several times."""

    def __init__(self, state: State) -> None:
        self._by_code: dict[str, list[tuple[str, int]]] = {}
        for field, amount in state.items():
            code, _, place = field[1:].partition(":")
            self._by_code.setdefault(code, []).append((place, amount))

    def of(self, code: str) -> list[tuple[str, int]]:
        """(place, amount) of one feature."""
        return self._by_code.get(code, [])


@dataclass(frozen=True, slots=True)
class _Contribution:
    """What an event of one type does to one code of its entity."""

    family: Aggregation
    code: str
    bucket_us: int
    of: str


class FeaturePlan:
    """The features of an application, ready to be counted and read."""

    def __init__(self, specs: Iterable[FeatureSpec]) -> None:
        """Raises ContractViolation where two features of a kind share a name, or two unlike ones a code."""
        self.specs = tuple(specs)
        self._of_kind: dict[str, list[FeatureSpec]] = {}
        self._contributions: dict[tuple[str, str], tuple[_Contribution, ...]] = {}
        made: dict[str, object] = {}
        for spec in self.specs:
            known = self._of_kind.setdefault(spec.entity, [])
            if any(spec.name == other.name for other in known):
                raise ContractViolation(f"Two features are called {spec.entity}.{spec.name}.")
            known.append(spec)
            meaning = (spec.entity, spec._family, spec.events, spec.of, spec.bucket_us)
            if made.setdefault(spec.code, meaning) != meaning:
                raise ContractViolation(
                    f"The feature {spec.entity}.{spec.name} has the code of another: rename a field."
                )
            family = Aggregation.COUNT if spec.aggregation is Aggregation.SESSION else spec.aggregation
            part = _Contribution(family, spec.code, spec.bucket_us, spec.of)
            for event_type in spec.events:
                parts = self._contributions.get((spec.entity, event_type), ())
                if part not in parts:
                    self._contributions[spec.entity, event_type] = (*parts, part)

    def of(self, kind: str, *, boards: bool = False) -> list[FeatureSpec]:
        """The features of one kind of entity: of each entity alone, or the boards of its shards."""
        return [spec for spec in self._of_kind.get(kind, []) if (spec.aggregation in _BOARDS) == boards]

    def kinds(self) -> list[str]:
        """The kinds of entities that have features."""
        return list(self._of_kind)

    def keeps(self, kind: str) -> bool:
        """Whether the kind's boards hold what stands however old it is."""
        return any(spec.aggregation is Aggregation.STANDING for spec in self._of_kind.get(kind, []))

    def counts(self, record: Record) -> bool:
        """Whether a record changes any state."""
        return (record.kind, record.event_type) in self._contributions

    def horizon(self, kind: str) -> timedelta:
        """How far back any feature of that kind looks."""
        return max((spec.window for spec in self._of_kind.get(kind, [])), default=timedelta(0))

    def accumulate(self, records: Iterable[Record], into: Deltas) -> None:
        """Add what the records do to the states of their entities. A record that lacks a field that a feature wants, is not
        counted by that feature; nor is one that has anything but a whole number where it wants a sum."""
        contributions = self._contributions
        for kind, entity_id, event_type, time_us, _, values in records:
            parts = contributions.get((kind, event_type))
            if parts is None:
                continue
            own = (kind, entity_id)
            for part in parts:
                family = part.family
                if family is Aggregation.COUNT:
                    key, field, amount, is_largest = own, f"+{part.code}:{time_us // part.bucket_us}", 1, False
                elif family is Aggregation.TOP:
                    field = f"+{part.code}:{time_us // part.bucket_us}:{entity_id}"
                    key, amount, is_largest = (kind, BOARD), 1, False
                elif family is Aggregation.NEWEST:
                    field = f"^{part.code}:{entity_id}"
                    key, amount, is_largest = (kind, BOARD), time_us // 1000, True
                else:
                    said = values.get(part.of)
                    if said is None:
                        continue
                    key = own
                    if family is Aggregation.SUM:
                        if not isinstance(said, int):
                            continue
                        field, amount, is_largest = f"+{part.code}:{time_us // part.bucket_us}", said, False
                    elif family is Aggregation.STANDING:
                        field = f"^{part.code}:{standing.place_of(entity_id, str(said))}"
                        key, amount, is_largest = (kind, BOARD), time_us, True
                    else:
                        place = said if family is Aggregation.LAST else sketch_place(str(said))
                        field, amount, is_largest = f"^{part.code}:{place}", time_us // 1000, True
                state = into.get(key)
                if state is None:
                    state = into[key] = {}
                before = state.get(field)
                if before is None:
                    state[field] = amount
                elif not is_largest:
                    state[field] = before + amount
                elif amount > before:
                    state[field] = amount

    def features(self, kind: str, state: State, now_us: int) -> dict[str, FeatureValue]:
        """Every feature of one entity of that kind at a moment, by name; boards apart."""
        fields = Fields(state)
        return {spec.name: spec._value(fields.of(spec.code), now_us) for spec in self.of(kind)}

    def stale(self, kind: str, state: State, now_us: int) -> list[str]:
        """The fields of a state that no value at this moment or later depends on; fields of unknown features stay."""
        fields = Fields(state)
        wanted: set[str] = set()
        listed: set[str] = set()
        for spec in self._of_kind.get(kind, []):
            sign = "^" if spec.aggregation in _TIMED else "+"
            own = fields.of(spec.code)
            gone = set(spec._stale(own, now_us))
            for place, _ in own:
                (listed if place in gone else wanted).add(f"{sign}{spec.code}:{place}")
        return sorted(listed - wanted)


def merged(state: State, deltas: Mapping[str, int]) -> dict[str, int]:
    """The state after those changes."""
    out = dict(state)
    for field, amount in deltas.items():
        before = out.get(field)
        if before is None:
            out[field] = amount
        else:
            out[field] = before + amount if field[0] == "+" else max(before, amount)
    return out


def digest(states: Mapping[tuple[str, str], State], plan: FeaturePlan, now_us: int) -> str:
    """SHA-256 of all that any value at `now_us` or later depends on: equal states, equal digests, whoever computed them."""
    sha = hashlib.sha256()
    for (kind, entity_id), state in sorted(states.items()):
        stale = set(plan.stale(kind, state, now_us))
        kept = sorted((field, amount) for field, amount in state.items() if field not in stale)
        if kept:
            sha.update(json.dumps([kind, entity_id, kept], separators=(",", ":")).encode())
    return sha.hexdigest()
