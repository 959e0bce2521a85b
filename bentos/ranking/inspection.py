"""inspection: what people and probes ask the service: users, a user's history, what is live and its canary, readiness."""

from __future__ import annotations

import math
from datetime import datetime

import numpy as np

from bentos.ranking.content import RankingContent
from bentos.ranking.query import RankingQuery
from bentos.ranking.reader import UserReader
from bentos.ranking.recommender import Recommender
from infra.catalog.features.ranking import USER_FEATURES
from infra.contracts.canaries import Canary
from infra.contracts.candidates import Int32s
from infra.contracts.ids import alias_value, check_id
from infra.snapshots.live import LiveSnapshots

UNKNOWN_USER = "someone new"


class Inspection:
    """Reads and tells; changes nothing."""

    def __init__(self, live: LiveSnapshots[RankingContent], recommender: Recommender, reader: UserReader) -> None:
        self._live = live
        self._recommender = recommender
        self._reader = reader

    def users(self, limit: int) -> dict[str, object]:
        """A UsersReply: users spread from the longest history to the shortest, and one unknown."""
        sample = self._recommender.pin().content.sample_users
        rows: list[int] = []
        if sample:
            rows = np.unique(np.linspace(0, len(sample) - 1, min(limit, len(sample))).astype(int)).tolist()
        known = [
            {"user_id": sample[row].user_id, "history_length": sample[row].history_length, "known": True}
            for row in rows
        ]
        return {"users": [*known, {"user_id": UNKNOWN_USER, "history_length": 0, "known": False}]}

    async def user(self, user_id: str) -> dict[str, object]:
        """A UserReply, of the snapshot that the user is shown. Raises InvalidRequest, DependencyUnavailable, SnapshotNotFound."""
        query = await self._read(user_id)
        snapshot, record = query.snapshot, query.record
        features = record.features.astype(float).tolist() if record is not None else []
        return {
            "user_id": user_id,
            "snapshot": alias_value(snapshot.alias.version),
            "known": record is not None,
            "candidates": len(record.item_indices) if record is not None else 0,
            "features": {
                name: None if math.isnan(value) else round(value, 4)
                for name, value in zip(USER_FEATURES, features, strict=False)
            },
            "nearline": {
                name: value if isinstance(value, int) else [str(one) for one in value]
                for name, value in query.nearline.items()
            },
            "counted": query.seen is not None and query.seen.is_whole,
            "history": _history(query, query.consumed),
        }

    async def history(self, user_id: str, limit: int) -> dict[str, object]:
        """A HistoryReply; see `user`."""
        query = await self._read(user_id)
        return {
            "user_id": user_id,
            "snapshot": alias_value(query.snapshot.alias.version),
            "known": query.record is not None,
            "history": _history(query, query.consumed[:limit]),
        }

    async def _read(self, user_id: str) -> RankingQuery:
        """What is known of that user now."""
        check_id(user_id, what="user_id")
        snapshot = self._recommender.assign(user_id).shown
        board = snapshot.content.shelf.current()
        query = RankingQuery(snapshot, user_id, n=1, session=[], excluded=np.empty(0, np.int32), board=board)
        await self._reader.read(query)
        return query

    def status(self, *, now: datetime) -> dict[str, object]:
        """The service's share of a StatusReply."""
        application = self._live.application
        pinned = self._live.current
        if pinned is None:
            told = {"problem": self._live.problem, "mend": self._live.mend}
            return {"application": application, "ready": False, **told, "live": None, "canary": None}
        alias, manifest = pinned.alias, pinned.manifest
        live = {
            "snapshot": alias_value(alias.version),
            "generation": alias.generation,
            "digest": alias.digest,
            "dataset": manifest.dataset,
            "created_at": manifest.created_at.isoformat(),
            "age_s": round((now - manifest.created_at).total_seconds(), 1),
            "flipped_at": alias.flipped_at.isoformat(),
            "flipped_by": alias.actor,
            "reason": alias.reason,
            "loaded_at": pinned.loaded_at.isoformat(),
            "load_s": round(pinned.load_seconds, 3),
            "counts": manifest.counts,
            "ranker": manifest.ranker.metrics,
            "embedder": manifest.embedder,
        }
        told = {"problem": self._live.problem, "mend": ""}
        return {"application": application, "ready": True, **told, "live": live, "canary": self._canary(alias.canary)}

    def ready(self) -> dict[str, object]:
        """A ReadyReply; raises SnapshotNotFound (503) before the first snapshot has been loaded."""
        pinned = self._recommender.pin()
        note = "; ".join(text for text in (self._live.problem, self._live.canary_problem) if text)
        return {"ready": True, "snapshot": alias_value(pinned.alias.version), "note": note}

    def _canary(self, canary: Canary | None) -> dict[str, object] | None:
        if canary is None:
            return None
        pinned = self._live.canary
        loaded_at = pinned.loaded_at if pinned is not None and pinned.alias.digest == canary.digest else None
        return {
            "snapshot": alias_value(canary.version),
            "digest": canary.digest,
            "mode": canary.mode.value,
            "fraction": canary.fraction,
            "started_at": canary.started_at.isoformat(),
            "started_by": canary.started_by,
            "loaded_at": loaded_at.isoformat() if loaded_at is not None else None,
            "problem": self._live.canary_problem,
        }


def _history(query: RankingQuery, consumed: Int32s) -> list[dict[str, object]]:
    items, recent = query.snapshot.content.items, set(query.overlay)
    return [
        {
            "item_id": items.item_ids[item],
            "title": items.titles[face],
            "genres": items.genres[face],
            "seen_by": "stream" if item in recent else "batch",
        }
        for item, face in zip(consumed.tolist(), query.board.faces_of(consumed).tolist(), strict=True)
    ]
