"""many: lists for hundreds of users in one call: each answered or refused by itself, a few at a time, within one deadline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from bentos.ranking.recommender import Recommender
from bentos.ranking.schema import RecommendRequest, UserRequest
from bentos.ranking.schema_lists import MANY_BUDGET_MS, MAX_ITEMS, ManyRequest
from bentos.web.exchange import refusal
from bentos.web.front import error_content
from infra.contracts.errors import ContractViolation, DeadlineExceeded, HeadgateError, InvalidRequest
from infra.resilience.deadline import Deadline

_log = logging.getLogger("headgate.many")

AT_ONCE = 2
"""Entries under way in a worker, of all such calls together. The event loop is what they share with single requests: with 2 a
single request takes three times as long meanwhile (p50 4 to 13 ms on a busy machine), with 4 or 8 six times, and stages are
left out for want of time, at no more entries a second."""


class Many:
    """Goes through the same recommender as single requests do, so that reads coalesce and every list is logged."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def recommend(self, request: ManyRequest, *, request_id: str) -> dict[str, object]:
        """A ManyReply as plain values; entry 7 has the request id of the call with -7 behind it.

        Raises InvalidRequest where all together ask for too much, SnapshotNotFound.
        """
        shared = request.shared.model_dump(exclude_unset=True)
        _check_total(request.requests, shared)
        self._recommender.pin()
        deadline = Deadline.after_ms(MANY_BUDGET_MS if request.deadline_ms is None else request.deadline_ms)
        results: list[dict[str, object]] = [{} for _ in request.requests]
        entries = iter(enumerate(request.requests))

        async def work() -> None:
            for index, said in entries:
                async with self._turns:
                    results[index] = await self._one(said, shared, f"{request_id}-{index}", deadline)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return {
            "request_id": request_id,
            "results": results,
            "failed": sum("error" in result for result in results),
        }

    async def _one(
        self, said: object, shared: Mapping[str, object], request_id: str, deadline: Deadline
    ) -> dict[str, object]:
        """A RecommendReply or an ErrorReply, as plain values."""
        try:
            request = _entry(said, shared)
            left_ms = deadline.remaining_ms()
            if left_ms <= 0:
                raise DeadlineExceeded(
                    "The call's deadline passed before this entry's turn.", mend="Send fewer, or a longer deadline_ms."
                )
            return await self._recommender.recommend(request, request_id=request_id, within_ms=left_ms)
        except HeadgateError as error:
            return error_content(error, request_id=request_id)
        except Exception:  # noqa: BLE001 - whatever one entry meets, the others are answered
            _log.exception("request %s failed", request_id)
            failed = ContractViolation("The service failed.", mend="Its log tells more under this request_id.")
            return error_content(failed, request_id=request_id)


def _entry(said: object, shared: Mapping[str, object]) -> RecommendRequest:
    """Raises BadRequest."""
    merged = {**shared, **said} if isinstance(said, dict) else said
    try:
        entry = UserRequest.model_validate(merged)
    except ValidationError as error:
        raise refusal(error, UserRequest) from error
    return RecommendRequest.model_construct(**dict(entry))


def _check_total(requests: list[object], shared: Mapping[str, object]) -> None:
    total = sum(_wanted(requests, shared.get("n", UserRequest.model_fields["n"].default)))
    if total > MAX_ITEMS:
        raise InvalidRequest(f"requests ask for {total:,} items in all (n of each); wanted at most {MAX_ITEMS:,}.")


def _wanted(requests: list[object], default: object) -> Iterator[int]:
    """Of each entry that says a number."""
    for said in requests:
        n = said.get("n", default) if isinstance(said, dict) else 0
        if isinstance(n, int) and n > 0:  # others are refused by themselves
            yield n
