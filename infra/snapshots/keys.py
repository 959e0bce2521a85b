"""keys: every Redis key that headgate uses, in one place."""

from __future__ import annotations

from infra.contracts.ids import ApplicationName, VersionName


def alias(application: ApplicationName) -> str:
    """The hash that says which version is live. The braces put it and its history into one cluster slot."""
    return f"headgate:{{{application}}}:predictions_current"


def alias_history(application: ApplicationName) -> str:
    """The list of versions that were live, newest last; the last one is live."""
    return f"headgate:{{{application}}}:predictions_history"


def alias_channel(application: ApplicationName) -> str:
    """Where flips are announced."""
    return f"headgate:{{{application}}}:predictions_flips"


def user_record_prefix(application: ApplicationName, version: VersionName) -> str:
    """What a user's key starts with; the rest is the user id as it is."""
    return f"hg:{application}:{version}:u:"


def consumed_prefix(application: ApplicationName, version: VersionName) -> str:
    """What the key of a user's older consumed items starts with; only users have one whose record cannot hold all."""
    return f"hg:{application}:{version}:c:"


def load_marker(application: ApplicationName, version: VersionName) -> str:
    """The JSON that says a version's serving copy is complete, and how large it is."""
    return f"hg:{application}:{version}:loaded"


def version_pattern(application: ApplicationName, version: VersionName) -> str:
    """Matches every key of one version."""
    return f"hg:{application}:{version}:*"


def event_log(application: ApplicationName) -> str:
    """The stream of events that the service took."""
    return f"hg:{application}:log"


def recent_items(application: ApplicationName, user_id: str) -> str:
    """A user's latest items, scored by event time in milliseconds."""
    return f"hg:{application}:recent:{user_id}"


def event_seen(application: ApplicationName, event_id: str) -> str:
    """Set while an event id is remembered, so that a producer's retry counts once."""
    return f"hg:{application}:event:{event_id}"
