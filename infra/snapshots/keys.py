"""keys: every Redis key that headgate uses, in one place."""

from __future__ import annotations

import zlib

from infra.contracts.events import SHARDS, shard_of
from infra.contracts.ids import ApplicationName, VersionName


def alias(application: ApplicationName) -> str:
    """The hash that says which version is live. The braces put it and its leases into one cluster slot."""
    return f"headgate:{{{application}}}:predictions_current"


def alias_channel(application: ApplicationName) -> str:
    """Where flips are announced."""
    return f"headgate:{{{application}}}:predictions_flips"


RECORD = "u:"
CONSUMED = "c:"
"""What follows a version's prefix in the keys of users' records, and of their older consumed items."""


def shard_tag(application: ApplicationName, shard: int) -> str:
    """What the keys of one shard begin with: the braces put its log, its nearline state and its users' records into one cluster
    slot, so that one round trip, and one script, may use them together."""
    return f"hg:{{{application}.{shard:02d}}}:"


def _of_user(application: ApplicationName, user_id: str) -> str:
    return shard_tag(application, shard_of("user", user_id))


def leases(application: ApplicationName) -> str:
    """The sorted set of who reads which version (`predictions_v12 <reader>`), by the millisecond at which that lapses."""
    return f"headgate:{{{application}}}:predictions_leases"


def claims(application: ApplicationName) -> str:
    """The sorted set of versions that garbage collection is deleting, by the millisecond at which its claim lapses."""
    return f"headgate:{{{application}}}:predictions_claims"


def user_record(application: ApplicationName, version: VersionName, user_id: str) -> str:
    """A user's packed record in one version; the user id stands in it as it is."""
    return f"{_of_user(application, user_id)}{version}:{RECORD}{user_id}"


def consumed(application: ApplicationName, version: VersionName, user_id: str) -> str:
    """A user's older consumed items in one version; only users have one whose record cannot hold all."""
    return f"{_of_user(application, user_id)}{version}:{CONSUMED}{user_id}"


class UserKeys:
    """The keys of one version's users by their names as `records.keys_of` makes them: RECORD or CONSUMED, then the user id."""

    def __init__(self, application: ApplicationName, version: VersionName) -> None:
        self._prefixes = [f"{shard_tag(application, shard)}{version}:".encode() for shard in range(SHARDS)]
        self.prefix_bytes = len(self._prefixes[0])

    def key(self, name: bytes) -> bytes:
        """The whole key."""
        return self._prefixes[zlib.crc32(b"user:" + name[len(RECORD) :]) % SHARDS] + name

    def name(self, key: bytes) -> bytes:
        """What follows the prefix."""
        return key[self.prefix_bytes :]


def load_marker(application: ApplicationName, version: VersionName) -> str:
    """The JSON that says a version's serving copy is complete, and how large it is."""
    return f"{shard_tag(application, 0)}{version}:loaded"


def version_pattern(application: ApplicationName, version: VersionName) -> str:
    """Matches every key of one version."""
    return f"hg:{{{application}.??}}:{version}:*"


def event_log(application: ApplicationName, shard: int) -> str:
    """The stream of one shard's records."""
    return shard_tag(application, shard) + "log"


def event_log_tip(application: ApplicationName, shard: int) -> str:
    """The highest offset that was ever written to a shard."""
    return shard_tag(application, shard) + "log_tip"


def event_log_terms(application: ApplicationName, shard: int) -> str:
    """The parts of a shard's life: `<name>:<first offset>` of each, the newest last, with blanks between."""
    return shard_tag(application, shard) + "log_terms"


def event_log_seen(application: ApplicationName, shard: int, half: int) -> str:
    """The duplicate keys of the last offsets and where they stand, in two halves that take turns."""
    return f"{shard_tag(application, shard)}log_seen_{half}"


def log_consumers(application: ApplicationName) -> str:
    """The hash of how far others than worker and archive have read: `<consumer>:<shard>` -> offset; no trim passes them."""
    return f"hg:{application}:log_consumers"


def dead_letters(application: ApplicationName) -> str:
    """The stream of events that were refused, and why."""
    return f"hg:{application}:dead_letters"


def nearline_position(application: ApplicationName, shard: int) -> str:
    """The hash that says up to which offset a shard's records are in the state, and who may add to it: its epoch and owner."""
    return shard_tag(application, shard) + "position"


def nearline_state(application: ApplicationName, kind: str, entity_id: str, *, shard: int | None = None) -> str:
    """The hash of an entity's nearline state; with `shard` and an empty id that of the shard's board of the kind."""
    of = shard_of(kind, entity_id) if shard is None else shard
    return f"{shard_tag(application, of)}state:{kind}:{entity_id}"


def nearline_state_pattern(application: ApplicationName) -> str:
    """Matches the states of all entities."""
    return f"hg:{{{application}.??}}:state:*"


def nearline_seen(application: ApplicationName, shard: int, half: int) -> str:
    """As `event_log_seen`, kept by the reader of a log that does not find duplicates itself."""
    return f"{shard_tag(application, shard)}seen_{half}"


def nearline_workers(application: ApplicationName) -> str:
    """The sorted set of workers by the millisecond at which they are taken for dead."""
    return f"hg:{application}:nearline_workers"


def pending(application: ApplicationName, kind: str, entity_id: str) -> str:
    """The list of an entity's own last records, newest first, for requests that come before the worker."""
    return f"{shard_tag(application, shard_of(kind, entity_id))}pending:{kind}:{entity_id}"


def decision_log(application: ApplicationName) -> str:
    """The stream of answers with all that they were made of."""
    return f"hg:{application}:decisions"


def exposure_log(application: ApplicationName) -> str:
    """The stream of lists that the service showed, or would have shown."""
    return f"hg:{application}:exposures"


def canary_look(application: ApplicationName) -> str:
    """The newest look at the canary that runs, as JSON; the judgement that ends it lies beside the snapshot."""
    return f"headgate:{{{application}}}:canary_look"
