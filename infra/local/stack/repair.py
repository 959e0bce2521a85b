"""repair: after Redis was started: where it forgot what the journal of flips says, copies and alias are rebuilt from the store."""

from __future__ import annotations

from infra.catalog.applications import APPLICATIONS
from infra.config import console
from infra.config.settings import Settings
from infra.contracts.errors import HeadgateError
from infra.snapshots.connection import batch_client
from infra.snapshots.promotion import Promotion
from infra.snapshots.versions import SnapshotStore


def repair(chosen: Settings) -> None:
    """Reload every application whose alias is behind its journal; what cannot be repaired is said, and stops nobody."""
    with batch_client(chosen.redis_url.get_secret_value()) as client:
        for spec in APPLICATIONS.values():
            promotion = Promotion(SnapshotStore(chosen.store, spec.name), client)
            standing = promotion.flips.look()
            if standing.applied or standing.ahead:
                continue
            console.say(f"{spec.name}: {standing.problem}. It is done now")
            try:
                with console.progress(f"reload {spec.name}") as advance:
                    done = promotion.reload(limit_fraction=chosen.memory_limit_fraction, advance=advance)
            except HeadgateError as error:
                console.say(f"{spec.name}: it could not be rebuilt. {error}")
                continue
            if done.after.alias is not None:
                alias = done.after.alias
                console.say(f"{spec.name}: {alias.version} is live again, generation {alias.generation}")
