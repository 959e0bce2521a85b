"""service: RankingService, the feed over HTTP; start it with `bentoml serve bentos.ranking.service:RankingService`."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import bentoml

from bentos.ranking.content import RankingContent, load_content
from bentos.ranking.decisions import BATCH
from bentos.ranking.exposures import ExposureWriter
from bentos.ranking.feedback import Feedback, now_utc
from bentos.ranking.inspection import Inspection
from bentos.ranking.pages import page_routes
from bentos.ranking.pipeline import ranking_cascade
from bentos.ranking.queued import QueuedWriter
from bentos.ranking.reader import UserReader
from bentos.ranking.recommender import Recommender
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
from bentos.ranking.shadow import ShadowScorer
from bentos.ranking.telemetry import Telemetry
from bentos.web.exchange import BadRequest, Exchange, Reply, json_reply
from bentos.web.front import Route
from bentos.web.fronted import FrontedService
from bentos.web.openapi import documentation_routes
from infra.cascade.lane import Lane
from infra.catalog.applications.ranking import RANKING
from infra.catalog.events.ranking import RANKING_EVENTS
from infra.catalog.features.nearline import plan_of
from infra.config.settings import settings
from infra.contracts.errors import InvalidRequest
from infra.eventlog.dead_letters import DeadLetters
from infra.eventlog.decisions import RedisDecisionLog
from infra.eventlog.exposures import RedisExposureLog
from infra.nearline.boards import BoardReader
from infra.nearline.opening import open_log
from infra.nearline.pending import PendingRecords
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from infra.snapshots.live import LiveSnapshots
from infra.snapshots.versions import SnapshotStore

_REDIS_TIMEOUT_S = 0.5
_DESCRIPTION = """One ranked list a request, from one snapshot.

Errors have one form: `{"error": {"type", "message", "mend"}, "request_id"}`; 4xx: the caller must act, 5xx: the operator."""

_BODY_ERRORS = (400, 408, 413, 415, 422)


@bentoml.service(
    service_class=FrontedService,
    workers=settings().service_workers,
    http={"host": "127.0.0.1", "port": settings().ranking_port},
    logging={"access": {"enabled": False}},
    traffic={"timeout": 30},
)
class RankingService:
    """Ranks a user's precomputed candidates for this request."""

    max_body_bytes = RANKING.max_body_bytes

    def __init__(self) -> None:
        """Wires the parts; nothing is connected or loaded before `start`."""
        logging.getLogger("headgate").setLevel(logging.INFO)
        sys.setswitchinterval(0.0005)
        chosen, name = settings(), RANKING.name
        self._started_s = time.monotonic()
        self._client = serving_client(chosen.redis_url.get_secret_value(), timeout_s=_REDIS_TIMEOUT_S)
        boards = self._boards = BoardReader(self._client, name, plan_of(name), kind="item")
        self._live: LiveSnapshots[RankingContent] = LiveSnapshots(
            self._client, SnapshotStore(chosen.store, name), partial(load_content, boards=lambda: boards.current)
        )
        self._telemetry = Telemetry(name)
        self._lane = Lane("scoring")
        cascade = ranking_cascade(self._client, lane=self._lane, watchers=(self._telemetry,))
        self._shadow_lane = Lane("shadow")
        unseen = ranking_cascade(self._client, lane=self._shadow_lane)
        lists = RedisExposureLog(self._client, keys.exposure_log(name), kept=chosen.exposures_kept)
        self._exposures = ExposureWriter(lists, self._telemetry, users_fraction=chosen.exposure_users)
        self._shadow = ShadowScorer(unseen, self._exposures, self._telemetry)
        self._log_client = serving_client(chosen.log_redis_url.get_secret_value(), timeout_s=_REDIS_TIMEOUT_S)
        answers = RedisDecisionLog(self._log_client, keys.decision_log(name), kept=chosen.decisions_kept)
        self._decisions = QueuedWriter(answers.append, self._telemetry, name="decisions", batch=BATCH)
        self._recommender = Recommender(
            self._live, cascade, RANKING, exposures=self._exposures, decisions=self._decisions, shadow=self._shadow
        )
        self._events = open_log(chosen, name, timeout_s=_REDIS_TIMEOUT_S)
        self._feedback = Feedback(
            self._events,
            RANKING_EVENTS,
            pending=PendingRecords(self._client, name, plan_of(name), kinds=RANKING_EVENTS.fresh),
            dead_letters=DeadLetters(self._log_client, keys.dead_letters(name)),
        )
        self._inspection = Inspection(self._live, self._recommender, UserReader(self._client, name))

    @bentoml.on_startup
    async def start(self) -> None:
        """Begin to watch the alias, and to write what is shown."""
        await self._exposures.start()
        await self._decisions.start()
        await self._boards.start()
        await self._live.start()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Write the last lists to their log, then let go of Redis and of the scoring threads."""
        await self._shadow.stop()
        await self._exposures.stop()
        await self._decisions.stop()
        await self._live.stop()
        await self._boards.stop()
        for lane in (self._lane, self._shadow_lane):
            lane.close()
        await self._events.close()
        await self._log_client.aclose()
        await self._client.aclose()

    # BentoML's own description and its clients know these two; over HTTP the front answers them by `routes`.

    @bentoml.api(route="/recommend")
    async def recommend(self, request: RecommendRequest, /) -> Any:
        """A ranked list for one user."""
        return await self._recommender.recommend(request, request_id="in-process")

    @bentoml.api(route="/events")
    async def events(self, request: EventsRequest, /) -> Any:
        """Feedback."""
        return (await self._feedback.take(request.root, request_id="in-process", now=now_utc())).reply

    def routes(self) -> Sequence[Route]:
        """Everything the front answers itself."""
        served = [
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
                query={"limit": "how many, 1 to 200"},
                errors=(422, 503),
            ),
            Route("GET", "/users/{user_id}", self._get_user, "A user's history", gives=UserReply, errors=(422, 503)),
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
        documentation = documentation_routes(
            served, title="headgate ranking", version="0.1.0", description=_DESCRIPTION
        )
        return [*served, *documentation, *page_routes()]

    async def _post_recommend(self, exchange: Exchange) -> Reply:
        request = await exchange.json(RecommendRequest)
        return json_reply(await self._recommender.recommend(request, request_id=exchange.request_id))

    async def _post_events(self, exchange: Exchange) -> Reply:
        try:
            request = await exchange.json(EventsRequest)
        except BadRequest as error:
            self._telemetry.note("events_refused")
            await self._feedback.bury(exchange.raw, str(error), now=now_utc())
            raise
        try:
            taken = await self._feedback.take(request.root, request_id=exchange.request_id, now=now_utc())
        except InvalidRequest:
            self._telemetry.note("events_refused")
            raise
        reply = taken.reply
        self._telemetry.note("events", reply.accepted - reply.duplicates)
        self._telemetry.note("events_known_before", reply.duplicates)
        self._telemetry.note("events_refused", len(reply.refused))
        self._telemetry.note("events_not_noted", taken.not_noted)
        return json_reply(reply.model_dump())

    async def _get_users(self, exchange: Exchange) -> Reply:
        return json_reply(self._inspection.users(exchange.query.get("limit", "50")))

    async def _get_user(self, exchange: Exchange) -> Reply:
        return json_reply(await self._inspection.user(exchange.variables["user_id"]))

    async def _get_status(self, exchange: Exchange) -> Reply:
        return json_reply(
            {
                **self._inspection.status(now=now_utc()),
                "boards_age_s": round(age_s, 1) if (age_s := self._boards.age_s) is not None else None,
                "counters": dict(self._telemetry.counters),
                "uptime_s": round(time.monotonic() - self._started_s, 1),
                "worker_pid": os.getpid(),
            }
        )

    async def _get_ready(self, exchange: Exchange) -> Reply:
        return json_reply(self._inspection.ready())
