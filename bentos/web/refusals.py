"""refusals: what is wrong with a request's values, in one line: the field, what was seen, and the range that is allowed."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from infra.contracts.errors import InvalidRequest

_TOLD = 5
"""Wrong values that are told; of others their number."""

Schema = Mapping[str, Any]

_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = _SHOWN.maxlong = 60
_SHOWN.maxlist = _SHOWN.maxdict = 3


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number of a query string, from `least` to `most`."""

    description: str
    default: int
    least: int
    most: int


def numbers_of(declared: Mapping[str, Number], query_string: bytes) -> dict[str, int]:
    """A route's numbers, as the query string has them. Raises InvalidRequest: unknown, given twice, no number, out of range."""
    said: dict[str, str] = {}
    for name, text in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
        if name not in declared:
            raise InvalidRequest(f"The query has {name[:40]!r}; wanted {', '.join(declared)}.")
        if name in said:
            raise InvalidRequest(f"{name} is in the query twice; wanted it once.")
        said[name] = text
    return {name: _number(name, number, said.get(name)) for name, number in declared.items()}


_DIGITS = 9
"""Of a number in a query; Python takes long to read thousands of them."""


def _number(name: str, number: Number, text: str | None) -> int:
    if text is None:
        return number.default
    is_number = text.isascii() and text.isdigit() and len(text) <= _DIGITS
    if not is_number or not number.least <= int(text) <= number.most:
        wanted = f"a whole number from {number.least} to {number.most:,}"
        raise InvalidRequest(f"{name} is {text[:40]!r}; wanted {wanted}.")
    return int(text)


def wrong_values(error: ValidationError, model: type[BaseModel]) -> str:
    """What pydantic found, value by value, each with what its field's schema allows."""
    found = error.errors(include_url=False, include_context=False)
    schema, parts = _schema(model), []
    for problem in found[:_TOLD]:
        place, said = problem["loc"], problem["msg"]
        if problem["type"] == "extra_forbidden":
            said, wanted = "There is no such field", _names(_at(schema, place[:-1]))
        else:
            wanted = _wanted(_at(schema, place))
        seen = _SHOWN.repr(problem["input"])
        seen = seen if len(seen) <= 60 else f"{seen[:57]}..."
        parts.append(f"{place_of(place)}: {said}{wanted and f', wanted {wanted}'} (seen {seen})")
    more = f" and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    return "; ".join(parts) + more + "."


def place_of(steps: Sequence[int | str]) -> str:
    """Where in the body, as `rows.0.3`."""
    return ".".join(str(step) for step in steps)[:80] or "the body"


def _names(schema: Schema) -> str:
    """Of all fields of an object."""
    return f"one of {', '.join(schema.get('properties', {}))}"


@lru_cache
def _schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _at(root: Schema, place: Sequence[int | str]) -> Schema:
    """The schema of the field at that place; an empty one where there is none."""
    at = _resolved(root, root)
    for step in place:
        inner = at.get("items") if isinstance(step, int) else at.get("properties", {}).get(step)
        if inner is None:
            inner = at.get("additionalProperties")
        at = _resolved(inner, root) if isinstance(inner, dict) else {}
    return at


def _resolved(schema: Schema, root: Schema) -> Schema:
    """Behind its reference; of several forms the first that is not null."""
    while True:
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
        elif "anyOf" in schema:
            schema = next(form for form in schema["anyOf"] if form.get("type") != "null")
        else:
            return schema


def _wanted(schema: Schema) -> str:
    """In words; empty where the schema sets no bounds."""
    match schema.get("type"):
        case "integer":
            return _between(schema, "minimum", "maximum", "a whole number")
        case "number":
            return _between(schema, "minimum", "maximum", "a number")
        case "array":
            return _between(schema, "minItems", "maxItems", "a list", "entries")
        case "object":
            return _between(schema, "minProperties", "maxProperties", "an object", "entries")
        case "string":
            return _between(schema, "minLength", "maxLength", "text", "characters")
        case _:
            return ""


def _between(schema: Schema, least: str, most: str, what: str, unit: str = "") -> str:
    if most not in schema:
        return ""
    low, high = schema.get(least, 0), schema[most]
    if low == high:
        return f"{what} of {high:,} {unit}".strip()
    bounds = f"{_number_told(low)} to {_number_told(high)}"
    return f"{what} of {bounds} {unit}" if unit else f"{what} from {bounds}"


def _number_told(bound: float) -> str:
    """A bound as it is written: 60,000 or 3.40282e+38."""
    return f"{bound:,}" if abs(bound) < 1e15 else f"{bound:g}"
