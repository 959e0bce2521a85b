"""keys: every Redis key that headgate uses, in one place."""

from __future__ import annotations

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


def version_prefix(application: ApplicationName, version: VersionName) -> str:
    """What every key of one version starts with."""
    return f"hg:{application}:{version}:"


def leases(application: ApplicationName) -> str:
    """The sorted set of who reads which version (`predictions_v12 <reader>`), by the millisecond at which that lapses."""
    return f"headgate:{{{application}}}:predictions_leases"


def claims(application: ApplicationName) -> str:
    """The sorted set of versions that garbage collection is deleting, by the millisecond at which its claim lapses."""
    return f"headgate:{{{application}}}:predictions_claims"


def user_record_prefix(application: ApplicationName, version: VersionName) -> str:
    """What a user's key starts with; the rest is the user id as it is."""
    return version_prefix(application, version) + RECORD


def consumed_prefix(application: ApplicationName, version: VersionName) -> str:
    """What the key of a user's older consumed items starts with; only users have one whose record cannot hold all."""
    return version_prefix(application, version) + CONSUMED


def load_marker(application: ApplicationName, version: VersionName) -> str:
    """The JSON that says a version's serving copy is complete, and how large it is."""
    return version_prefix(application, version) + "loaded"


def version_pattern(application: ApplicationName, version: VersionName) -> str:
    """Matches every key of one version."""
    return version_prefix(application, version) + "*"


def event_log(application: ApplicationName) -> str:
    """The stream of events that the service took."""
    return f"hg:{application}:log"


def exposure_log(application: ApplicationName) -> str:
    """The stream of lists that the service showed, or would have shown."""
    return f"hg:{application}:exposures"


def canary_look(application: ApplicationName) -> str:
    """The newest look at the canary that runs, as JSON; the judgement that ends it lies beside the snapshot."""
    return f"headgate:{{{application}}}:canary_look"


def recent_items(application: ApplicationName, user_id: str) -> str:
    """A user's latest items, scored by event time in milliseconds."""
    return f"hg:{application}:recent:{user_id}"


def event_seen(application: ApplicationName, event_id: str) -> str:
    """Set while an event id is remembered, so that a producer's retry counts once."""
    return f"hg:{application}:event:{event_id}"
