"""service: RankingService, the feed over HTTP; start it with `bentoml serve bentos.ranking.service:RankingService`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial
from typing import cast

import bentoml
import numpy as np

from bentos.ranking.catalogue import Catalogue
from bentos.ranking.content import RankingContent, load_content
from bentos.ranking.decisions import BATCH
from bentos.ranking.explaining import Explainer
from bentos.ranking.exposures import ExposureWriter
from bentos.ranking.feedback import Feedback, now_utc
from bentos.ranking.inspection import Inspection
from bentos.ranking.items import Items
from bentos.ranking.many import Many
from bentos.ranking.offline import Offline
from bentos.ranking.pipeline import ranking_cascade
from bentos.ranking.queued import QueuedWriter
from bentos.ranking.reader import UserReader
from bentos.ranking.recalling import Recall
from bentos.ranking.recommender import Recommender
from bentos.ranking.routes import FeedRoutes
from bentos.ranking.rows import BATCHED_ROWS, LATEST_MS, Rows, RowScorer, Scores
from bentos.ranking.schema import EventsReply, EventsRequest, RecommendReply, RecommendRequest
from bentos.ranking.schema_lists import ManyReply, ManyRequest, SessionRequest
from bentos.ranking.shadow import ShadowScorer
from bentos.ranking.telemetry import Telemetry
from bentos.ranking.warming import Warmer
from bentos.web.front import Route
from bentos.web.fronted import FrontedService
from bentos.web.request_ids import new_request_id
from bentos.web.tracing import traced
from infra.cascade.lane import Lane
from infra.catalog.applications.ranking import RANKING
from infra.catalog.events.ranking import RANKING_EVENTS
from infra.catalog.features.nearline import plan_of
from infra.config.settings import settings
from infra.eventlog.dead_letters import DeadLetters
from infra.eventlog.decisions import RedisDecisionLog
from infra.eventlog.exposures import RedisExposureLog
from infra.nearline.archive import archive_of
from infra.nearline.boards import BoardReader
from infra.nearline.opening import open_log
from infra.nearline.pending import PendingRecords
from infra.snapshots import keys
from infra.snapshots.connection import serving_client
from infra.snapshots.live import LiveSnapshots
from infra.snapshots.versions import SnapshotStore

_REDIS_TIMEOUT_S = 0.5


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
        self._client = serving_client(chosen.redis_url.get_secret_value(), timeout_s=_REDIS_TIMEOUT_S)
        boards = self._boards = BoardReader(self._client, name, plan_of(name), kind="item")
        self._live: LiveSnapshots[RankingContent] = LiveSnapshots(
            self._client,
            SnapshotStore(chosen.store, name),
            partial(load_content, boards=lambda: boards.current),
            prepare=lambda loaded: self._warmer.warm(loaded),
        )
        self._telemetry = Telemetry(name)
        self._lane = Lane("scoring", tell=self._telemetry.note)
        watchers = (self._telemetry, *traced(name))
        cascade = ranking_cascade(self._client, lane=self._lane, watchers=watchers)
        self._shadow_lane = Lane("shadow", tell=self._telemetry.note)
        unseen = ranking_cascade(self._client, lane=self._shadow_lane)
        lists = RedisExposureLog(self._client, keys.exposure_log(name), kept=chosen.exposures_kept)
        self._exposures = ExposureWriter(lists, self._telemetry, users_fraction=chosen.exposure_users)
        self._shadow = ShadowScorer(unseen, self._exposures, self._telemetry)
        self._log_client = serving_client(chosen.log_redis_url.get_secret_value(), timeout_s=_REDIS_TIMEOUT_S)
        answers = RedisDecisionLog(self._log_client, keys.decision_log(name), kept=chosen.decisions_kept)
        self._stages = tuple(cascade.costs)
        self._warmer = Warmer(ranking_cascade(self._client, lane=self._lane), answers, teaches=cascade.costs)
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
        self._rows = RowScorer(self._recommender.pin, self._lane)
        self._aside = Lane("aside", tell=self._telemetry.note)
        self._many = Many(self._recommender)
        self._explainer = Explainer(
            self._live,
            UserReader(self._client, name),
            Recall(answers, archive_of(chosen.store, name)),
            offline=lambda since: Offline(chosen.store, name, horizon=chosen.log_duplicate_horizon, since=since),
        )
        self._routes = FeedRoutes(
            recommender=self._recommender,
            many=self._many,
            catalogue=Catalogue(self._recommender.pin, self._aside),
            items=Items(self._events, RANKING_EVENTS, self._boards, self._recommender.pin),
            feedback=self._feedback,
            inspection=Inspection(self._live, self._recommender, UserReader(self._client, name)),
            boards=self._boards,
            telemetry=self._telemetry,
            explainer=self._explainer,
            score_rows=self._batched,
        )

    @bentoml.on_startup
    async def start(self) -> None:
        """Begin to watch the alias, and to write what is shown."""
        self._telemetry.open(self._stages)
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
        for lane in (self._lane, self._shadow_lane, self._aside):
            lane.close()
        self._explainer.close()
        await self._events.close()
        await self._log_client.aclose()
        await self._client.aclose()

    # BentoML's own description and its clients know these; over HTTP the front answers them by `routes`.

    @bentoml.api(route="/recommend")
    async def recommend(self, request: RecommendRequest, /) -> RecommendReply:
        """A ranked list for one user."""
        reply = await self._recommender.recommend(request, request_id=new_request_id())
        return RecommendReply.model_validate(reply)

    @bentoml.api(route="/recommend_many")
    async def recommend_many(self, request: ManyRequest, /) -> ManyReply:
        """Lists for many users."""
        return ManyReply.model_validate(await self._many.recommend(request, request_id=new_request_id()))

    @bentoml.api(route="/session")
    async def session(self, request: SessionRequest, /) -> RecommendReply:
        """A list for nobody known."""
        return RecommendReply.model_validate(await self._recommender.session(request, request_id=new_request_id()))

    @bentoml.api(route="/events")
    async def events(self, request: EventsRequest, /) -> EventsReply:
        """Feedback."""
        return (await self._feedback.take(request.root, request_id=new_request_id(), now=now_utc())).reply

    @bentoml.api(route="/score_rows", batchable=True, max_batch_size=BATCHED_ROWS, max_latency_ms=LATEST_MS)
    async def score_rows(self, rows: Rows) -> Scores:
        """The live ranker's scores of rows of features."""
        return await self._rows.score(rows)

    async def _batched(self, rows: np.ndarray) -> np.ndarray:
        """`score_rows` by BentoML's dispatcher, which makes one call of concurrent ones."""
        scores: np.ndarray = await cast("FrontedService[RankingService]", RankingService).batched(
            "score_rows", rows=rows
        )
        return scores

    def routes(self) -> Sequence[Route]:
        """Everything the front answers itself."""
        return self._routes.table()
