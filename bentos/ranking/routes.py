"""routes: the table of what the feed's service answers over HTTP, and the handlers behind it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bentos.ranking.catalogue import Catalogue
from bentos.ranking.explaining import Explainer, explain_route
from bentos.ranking.feedback import Feedback, now_utc
from bentos.ranking.inspection import Inspection
from bentos.ranking.items import Items, item_routes
from bentos.ranking.many import Many
from bentos.ranking.pages import page_routes
from bentos.ranking.recommender import Recommender
from bentos.ranking.rows import Batched, rows_route
from bentos.ranking.schema import (
    EventsReply,
    EventsRequest,
    ReadyReply,
    RecommendReply,
    RecommendRequest,
    StatusReply,
    UserReply,
    UsersReply,
)
from bentos.ranking.schema_lists import (
    HistoryReply,
    ManyReply,
    ManyRequest,
    PopularReply,
    SessionRequest,
    SimilarReply,
)
from bentos.ranking.telemetry import Telemetry
from bentos.web.exchange import BadRequest, Exchange, Reply, json_reply
from bentos.web.front import Route
from bentos.web.openapi import documentation_routes
from bentos.web.refusals import Number
from infra.contracts.errors import InvalidRequest
from infra.nearline.boards import BoardReader

_DESCRIPTION = """Ranked lists, each from one snapshot.

Errors have one form: `{"error": {"type", "message", "mend"}, "request_id"}`; 4xx: the caller must act, 5xx: the operator."""

_BODY_ERRORS = (400, 408, 413, 415, 422)
_PATH_ERRORS = (400, 422)

_HOW_MANY = Number("how many", default=20, least=1, most=200)


@dataclass(frozen=True, slots=True)
class FeedRoutes:
    """What the service is made of, as its handlers use it."""

    recommender: Recommender
    many: Many
    catalogue: Catalogue
    items: Items
    feedback: Feedback
    inspection: Inspection
    boards: BoardReader
    telemetry: Telemetry
    explainer: Explainer
    score_rows: Batched
    started_s: float = field(default_factory=time.monotonic)

    def table(self) -> Sequence[Route]:
        """Everything the front answers itself."""
        beside = [explain_route(self.explainer), rows_route(self.score_rows), *item_routes(self.items)]
        served = [*self._lists(), *beside, *self._people(), *self._state()]
        documentation = documentation_routes(
            served, title="headgate ranking", version="0.1.0", description=_DESCRIPTION
        )
        return [*served, *documentation, *page_routes()]

    def _lists(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/recommend",
                self._post_recommend,
                "A ranked list for one user",
                "An unknown user gets the popular list. While Redis is away the popular list comes with `degraded: true`.",
                takes=RecommendRequest,
                gives=RecommendReply,
                errors=(*_BODY_ERRORS, 503, 504),
            ),
            Route(
                "POST",
                "/recommend_many",
                self._post_recommend_many,
                "Lists for up to 1,000 users",
                "Each entry is answered or refused by itself, in the order sent, and logged as if asked for alone.",
                takes=ManyRequest,
                gives=ManyReply,
                errors=(*_BODY_ERRORS, 503),
            ),
            Route(
                "POST",
                "/session",
                self._post_session,
                "A list for nobody known, by recent items",
                "From the live snapshot, whatever canary runs. Nothing of it is logged.",
                takes=SessionRequest,
                gives=RecommendReply,
                errors=(*_BODY_ERRORS, 503, 504),
            ),
            Route(
                "GET",
                "/similar/{item_id}",
                self._get_similar,
                "Items like one item",
                gives=SimilarReply,
                query={"n": _HOW_MANY},
                errors=(*_PATH_ERRORS, 404, 503),
            ),
            Route(
                "GET",
                "/popular",
                self._get_popular,
                "What many took",
                gives=PopularReply,
                query={"n": _HOW_MANY},
                errors=(422, 503),
            ),
        ]

    def _people(self) -> list[Route]:
        return [
            Route(
                "POST",
                "/events",
                self._post_events,
                "Feedback: one event or several",
                "Answered only after the log took all that are not refused. 503: send all of them again, with the same ids.",
                takes=EventsRequest,
                gives=EventsReply,
                errors=(*_BODY_ERRORS, 503),
            ),
            Route(
                "GET",
                "/users",
                self._get_users,
                "Users to try",
                gives=UsersReply,
                query={"limit": Number("how many", default=50, least=1, most=200)},
                errors=(422, 503),
            ),
            Route(
                "GET",
                "/users/{user_id}",
                self._get_user,
                "All that is known of a user",
                gives=UserReply,
                errors=(*_PATH_ERRORS, 503),
            ),
            Route(
                "GET",
                "/users/{user_id}/history",
                self._get_history,
                "The newest items of a user's history",
                gives=HistoryReply,
                query={"limit": Number("how many", default=50, least=1, most=1000)},
                errors=(*_PATH_ERRORS, 503),
            ),
        ]

    def _state(self) -> list[Route]:
        return [
            Route("GET", "/status", self._get_status, "The live snapshot and counters", gives=StatusReply),
            Route(
                "GET",
                "/readyz",
                self._get_ready,
                "200 once a snapshot is live and loaded",
                gives=ReadyReply,
                errors=(503,),
            ),
        ]

    async def _post_recommend(self, exchange: Exchange) -> Reply:
        request = await exchange.json(RecommendRequest)
        return json_reply(await self.recommender.recommend(request, request_id=exchange.request_id))

    async def _post_recommend_many(self, exchange: Exchange) -> Reply:
        request = await exchange.json(ManyRequest)
        return json_reply(await self.many.recommend(request, request_id=exchange.request_id))

    async def _post_session(self, exchange: Exchange) -> Reply:
        request = await exchange.json(SessionRequest)
        return json_reply(await self.recommender.session(request, request_id=exchange.request_id))

    async def _get_similar(self, exchange: Exchange) -> Reply:
        return json_reply(await self.catalogue.similar(exchange.variables["item_id"], exchange.numbers["n"]))

    async def _get_popular(self, exchange: Exchange) -> Reply:
        return json_reply(self.catalogue.popular(exchange.numbers["n"]))

    async def _post_events(self, exchange: Exchange) -> Reply:
        try:
            request = await exchange.json(EventsRequest)
        except BadRequest as error:
            self.telemetry.note("events_refused")
            await self.feedback.bury(exchange.raw, str(error), now=now_utc())
            raise
        try:
            taken = await self.feedback.take(request.root, request_id=exchange.request_id, now=now_utc())
        except InvalidRequest:
            self.telemetry.note("events_refused")
            raise
        reply = taken.reply
        self.telemetry.note("events", reply.accepted - reply.duplicates)
        self.telemetry.note("events_known_before", reply.duplicates)
        self.telemetry.note("events_refused", len(reply.refused))
        self.telemetry.note("events_not_noted", taken.not_noted)
        return json_reply(reply.model_dump())

    async def _get_users(self, exchange: Exchange) -> Reply:
        return json_reply(self.inspection.users(exchange.numbers["limit"]))

    async def _get_user(self, exchange: Exchange) -> Reply:
        return json_reply(await self.inspection.user(exchange.variables["user_id"]))

    async def _get_history(self, exchange: Exchange) -> Reply:
        user_id, limit = exchange.variables["user_id"], exchange.numbers["limit"]
        return json_reply(await self.inspection.history(user_id, limit))

    async def _get_status(self, exchange: Exchange) -> Reply:
        age_s = self.boards.age_s
        facts: Mapping[str, object] = {
            "boards_age_s": round(age_s, 1) if age_s is not None else None,
            "counters": dict(self.telemetry.counters),
            "uptime_s": round(time.monotonic() - self.started_s, 1),
            "worker_pid": os.getpid(),
        }
        return json_reply({**self.inspection.status(now=now_utc()), **facts})

    async def _get_ready(self, exchange: Exchange) -> Reply:
        return json_reply(self.inspection.ready())
