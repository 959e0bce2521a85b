"""Ids and version names: what is taken as it is, what is refused."""

from __future__ import annotations

import pytest

from infra.contracts.errors import InvalidRequest
from infra.contracts.ids import check_id, version_name, version_number


@pytest.mark.parametrize("text", ["a", "a:b", "{user}", "line\nbreak", "nul\0", "ü" * 128])
def test_strange_ids_are_kept_as_they_are(text: str) -> None:
    assert check_id(text, what="user_id") == text


@pytest.mark.parametrize("text", ["", "x" * 257, "ü" * 129, "\ud800"])
def test_empty_long_and_broken_ids_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="user_id"):
        check_id(text, what="user_id")


def test_a_version_may_be_named_in_both_forms() -> None:
    assert version_name("v12") == version_name(" predictions_v12 ") == "v12"
    assert version_number(version_name("v12")) == 12


@pytest.mark.parametrize("text", ["", "12", "v0", "v01", "v-1", "v1.0", "V3", "../v1", "v9999999999"])
def test_anything_else_is_no_version(text: str) -> None:
    with pytest.raises(InvalidRequest, match="wanted a form like v12"):
        version_name(text)
