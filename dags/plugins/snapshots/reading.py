"""reading: one application's snapshots as the page shows them, from the store and from Redis; it never writes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import redis

from dags.plugins.snapshots.timeline import Flip, newest_flips
from dags.plugins.snapshots.trials import Trial, trial_of
from infra.catalog.applications.spec import ApplicationSpec
from infra.contracts.errors import HeadgateError, SnapshotNotFound
from infra.contracts.ids import VersionName, version_number
from infra.contracts.snapshots import Alias, Manifest, State, StateRecord
from infra.experiments.filing import CanaryResult, newest_look
from infra.snapshots.flips import PROMOTABLE, Flips, Standing
from infra.snapshots.serving_copy import ServingCopy
from infra.snapshots.verdicts import FiledVerdict, newest_verdict
from infra.snapshots.versions import SnapshotStore, Version

Action = Literal["promote", "rollback"]
TrialAction = Literal["canary", "canary_end"]

_TRIABLE = frozenset({State.VALIDATED, State.RETIRED, State.ROLLED_BACK})


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One line of the table. Sizes are bytes; what a version does not have, or Redis did not say, is None.

    action, trial_action: what the buttons do; None where there is nothing to do, or where it cannot be done without Redis.
    problem: what is wrong with it, as the error said it; empty where nothing is.
    """

    version: VersionName
    state: State
    live: bool
    created_at: datetime | None
    users: int | None
    items: int | None
    store_bytes: int | None
    redis_bytes: int | None
    verdict: FiledVerdict | None
    trial: Trial | None
    went_live: StateRecord | None
    action: Action | None
    trial_action: TrialAction | None
    problem: str


@dataclass(frozen=True, slots=True)
class Overview:
    """All that the page shows of one application. Versions and flips are newest first.

    previous: what a rollback without a version goes to. older: how many versions there are beside those shown.
    redis_problem: why nothing is known of Redis. standing_problem: how its alias differs from the journal, and the mend.
    """

    application: str
    title: str
    now: datetime
    live: Alias | None
    previous: VersionName | None
    redis_problem: str
    standing_problem: str
    older: int
    versions: list[VersionRow]
    flips: list[Flip]


@dataclass(frozen=True, slots=True)
class Serving:
    """What is live, and what Redis holds. copies: version -> what its last complete load recorded.

    look: the newest at a canary, whichever that was.
    """

    standing: Standing
    copies: Mapping[VersionName, Mapping[str, object]]
    look: CanaryResult | None = None
    redis_problem: str = ""

    @property
    def live(self) -> VersionName | None:
        """By the alias and the journal; by the journal alone where Redis is away."""
        return self.standing.live.version if self.standing.live else None

    @property
    def trial(self) -> VersionName | None:
        """The version that runs beside it."""
        return self.standing.canary.version if self.standing.canary else None

    @property
    def path_back(self) -> list[VersionName]:
        """What a rollback goes to, one after the other; the next one is last."""
        return [target.version for target in self.standing.path[:-1]]


def overview(
    spec: ApplicationSpec, store: SnapshotStore, client: redis.Redis, *, now: datetime, newest: int, address: str
) -> Overview:
    """Read the `newest` versions and flips. address: what to call the Redis where it does not answer."""
    names = store.versions()
    shown = names[-newest:]
    serving = _serving(store, client, shown, address=address)
    lasting = [name for name in (serving.live, serving.trial) if name in names and name not in shown]
    shown = sorted([*lasting, *shown], key=version_number)
    return Overview(
        application=spec.name,
        title=spec.title,
        now=now,
        live=serving.standing.live,
        previous=serving.path_back[-1] if serving.path_back else None,
        redis_problem=serving.redis_problem,
        standing_problem="" if serving.redis_problem else serving.standing.problem,
        older=len(names) - len(shown),
        versions=[_row(store.get(name), serving) for name in reversed(shown)],
        flips=newest_flips(store.journal, count=newest),
    )


def report_page(version: Version) -> tuple[str, bytes]:
    """(file name, HTML) of the newest report; raises SnapshotNotFound where the gate has not judged the version."""
    verdict = newest_verdict(version)
    if verdict is None:
        raise SnapshotNotFound(
            f"{version.label} has no validation report.", mend=f"Run: make validate VERSION={version.version}"
        )
    return f"{version.application}-{version.version}-validation.html", version.storage.read(verdict.page)


def _serving(store: SnapshotStore, client: redis.Redis, shown: Collection[VersionName], *, address: str) -> Serving:
    try:
        standing = Flips(store, client).look()
        markers = {name: ServingCopy(client, store.get(name)).marker() for name in shown}
        look = newest_look(client, store.application) if standing.canary else None
    except redis.exceptions.RedisError as error:
        tip = store.journal.tip()
        problem = f"Redis at {address} does not answer ({type(error).__name__})."
        return Serving(Standing(None, tip.record, tip.highest), {}, redis_problem=problem)
    return Serving(standing, {name: marker for name, marker in markers.items() if marker is not None}, look)


def _row(version: Version, serving: Serving) -> VersionRow:
    history = version.history()
    state = history[-1].state if history else State.BUILDING
    went_live = next((record for record in reversed(history) if record.state is State.LIVE), None)
    manifest, problem = _manifest(version)
    copy = serving.copies.get(version.version)
    return VersionRow(
        version=version.version,
        state=state,
        live=version.version == serving.live,
        created_at=manifest.created_at if manifest else None,
        users=manifest.counts.get("users") if manifest else None,
        items=manifest.counts.get("items") if manifest else None,
        store_bytes=sum(part.bytes for part in manifest.parts.values()) if manifest else None,
        redis_bytes=int(str(copy["redis_bytes"])) if copy else None,
        verdict=newest_verdict(version),
        trial=trial_of(version, serving.standing.live, serving.look),
        went_live=went_live,
        action=_action(version.version, state, serving) if manifest else None,
        trial_action=_trial_action(version.version, state, serving) if manifest else None,
        problem=problem,
    )


def _manifest(version: Version) -> tuple[Manifest | None, str]:
    """(the manifest, why there is none although it was sealed)."""
    try:
        return (version.manifest() if version.sealed else None), ""
    except HeadgateError as error:
        return None, str(error)


def _action(version: VersionName, state: State, serving: Serving) -> Action | None:
    """Back to what was live before; anything else that the gate has passed may be promoted."""
    if serving.redis_problem or state not in PROMOTABLE or version == serving.live:
        return None
    if version in serving.path_back:
        return "rollback"
    was_live = state in {State.RETIRED, State.ROLLED_BACK}
    older = serving.live is not None and version_number(version) < version_number(serving.live)
    return "rollback" if was_live and older else "promote"


def _trial_action(version: VersionName, state: State, serving: Serving) -> TrialAction | None:
    """One runs at a time, beside what is live; what runs can be ended."""
    if serving.redis_problem or serving.live is None:
        return None
    if serving.trial is not None:
        return "canary_end" if version == serving.trial else None
    return "canary" if state in _TRIABLE and version != serving.live else None
