"""refusals: what is wrong with a request's values, in one line: the field, what was seen, and the range that is allowed."""

from __future__ import annotations

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


def _number(name: str, number: Number, text: str | None) -> int:
    if text is None:
        return number.default
    if not text.isascii() or not text.isdigit() or not number.least <= int(text[:9]) <= number.most:
        wanted = f"a whole number from {number.least} to {number.most:,}"
        raise InvalidRequest(f"{name} is {text[:40]!r}; wanted {wanted}.")
    return int(text)


def wrong_values(error: ValidationError, model: type[BaseModel]) -> str:
    """What pydantic found, value by value, each with what its field's schema allows."""
    found = error.errors(include_url=False, include_context=False)
    schema, parts = _schema(model), []
    for problem in found[:_TOLD]:
        place = ".".join(str(step) for step in problem["loc"]) or "the body"
        wanted = _wanted(_at(schema, problem["loc"]))
        seen = repr(problem["input"])
        seen = seen if len(seen) <= 60 else f"{seen[:57]}..."
        parts.append(f"{place[:80]}: {problem['msg']}{wanted and f', wanted {wanted}'} (seen {seen})")
    more = f" and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    return "; ".join(parts) + more + "."


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
    bounds = f"{schema.get(least, 0):,} to {schema[most]:,}"
    return f"{what} of {bounds} {unit}" if unit else f"{what} from {bounds}"
