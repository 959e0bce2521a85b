"""ids: the names of things as types of their own, and what a name may look like."""

from __future__ import annotations

import re
from typing import NewType

from infra.contracts.errors import InvalidRequest

ApplicationName = NewType("ApplicationName", str)
UserId = NewType("UserId", str)
ItemId = NewType("ItemId", str)
DatasetId = NewType("DatasetId", str)
VersionName = NewType("VersionName", str)
"""A snapshot's version: `v12`."""

MAX_ID_BYTES = 256
"""User and item ids are any non-empty UTF-8 up to this length: `:`, `{}`, newlines and NUL are allowed and kept as they are."""

_VERSION = re.compile(r"(?:predictions_)?(v[1-9][0-9]{0,8})")


def version_name(text: str) -> VersionName:
    """Parse `v12` or `predictions_v12`."""
    match = _VERSION.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(f"{text!r} is not a snapshot version; wanted a form like v12 or predictions_v12.")
    return VersionName(match.group(1))


def version_number(version: VersionName) -> int:
    """`v12` -> 12."""
    return int(version[1:])


def alias_value(version: VersionName) -> str:
    """What `predictions_current` holds for a version: `predictions_v12`."""
    return f"predictions_{version}"


def check_id(text: str, *, what: str) -> str:
    """Return `text` if it may be a user or item id, else raise InvalidRequest."""
    if not text:
        raise InvalidRequest(f"{what} is empty; wanted 1 to {MAX_ID_BYTES} bytes of UTF-8.")
    try:
        n_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{what} holds a lone surrogate; wanted valid Unicode.") from error
    if n_bytes > MAX_ID_BYTES:
        raise InvalidRequest(f"{what} has {n_bytes} bytes; wanted 1 to {MAX_ID_BYTES}.")
    return text
