"""records: a record of the log as bytes and back: a JSON array, the same in Redis, in Kafka and in the archive's digest."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from infra.contracts.errors import ContractViolation
from infra.contracts.events import Record

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[Record])


def encode(record: Record) -> bytes:
    """`[kind, entity id, event type, microseconds, event id, {values}]` in UTF-8."""
    return _encoder.encode(record)


def decode(payloads: Sequence[bytes]) -> list[Record]:
    """A page of records in one call, some 0.5 us each. Raises ContractViolation where one is not what `encode` makes."""
    try:
        found = _decoder.decode(b"[" + b",".join(payloads) + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _foreign(payloads) from error
    if len(found) != len(payloads):  # two in one, or an empty one
        raise _foreign(payloads)
    return found


def _foreign(payloads: Sequence[bytes]) -> ContractViolation:
    bad = next((payload for payload in payloads if not _is_record(payload)), b"")
    return ContractViolation(f"The event log holds a record that headgate did not write: {bad[:120]!r}.")


def _is_record(payload: bytes) -> bool:
    try:
        return len(_decoder.decode(b"[" + payload + b"]")) == 1
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
