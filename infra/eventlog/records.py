"""records: a record of the log as bytes and back: a JSON array, the same in Redis, in Kafka and in the archive's digest."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from infra.contracts.events import Record

_log = logging.getLogger("headgate.eventlog")

FOREIGN = Record(kind="", entity_id="", event_type="", event_time_us=0, event_id="", values={})
"""Of no entity, so that it changes no state: one bad record must not stop all that come after it."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[Record])


def encode(record: Record) -> bytes:
    """`[kind, entity id, event type, microseconds, event id, {values}]` in UTF-8."""
    return _encoder.encode(record)


def decode(payloads: Sequence[bytes]) -> list[Record]:
    """A page of records in one call, some 0.5 us each; FOREIGN in the place of what `encode` did not make."""
    try:
        found = _decoder.decode(b"[" + b",".join(payloads) + b"]")
        if len(found) == len(payloads):  # neither two in one nor an empty one
            return found
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    return [_record(payload) for payload in payloads]


def _record(payload: bytes) -> Record:
    try:
        (found,) = _decoder.decode(b"[" + payload + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        _log.error("The event log holds what headgate did not write; it counts for nothing: %r", payload[:120])
        return FOREIGN
    return found
