"""Request ids tell when they were given, and no two are the same."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

from bentos.web.request_ids import moment_of, new_request_id


def test_an_id_is_a_uuid_of_version_7_that_tells_its_moment() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    name = new_request_id()
    at = moment_of(name)
    assert at is not None
    assert before <= at <= datetime.now(UTC)
    assert (uuid.UUID(hex=name).version, uuid.UUID(hex=name).variant, len(name)) == (7, uuid.RFC_4122, 32)


def test_ids_differ_and_grow_with_time() -> None:
    names = [new_request_id() for _ in range(20_000)]
    assert len(set(names)) == len(names)
    assert [name[:12] for name in names] == sorted(name[:12] for name in names)


def test_ids_of_another_kind_tell_nothing() -> None:
    assert [moment_of(name) for name in (uuid.uuid4().hex, "in-process", "", "request-00012")] == [None] * 4


def test_what_follows_the_id_does_not_matter() -> None:
    name = new_request_id()
    assert moment_of(f"{name}-17") == moment_of(name)
