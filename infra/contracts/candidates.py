"""candidates: one user's precomputed record as packed bytes, and the map from inner products to stored scores."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.contracts.errors import ContractViolation

Int32s = NDArray[np.int32]
Float32s = NDArray[np.float32]
Float16s = NDArray[np.float16]

_HEADER = struct.Struct("<2sBBHH")
_MAGIC = b"hg"
_FORMAT = 1
HEADER_BYTES = _HEADER.size

MAX_HISTORY = 20
"""Recent items kept in a record. 1000 candidates, 12 features and 20 items make 6,112 bytes, which with the string's own
header fills Redis's 6,144-byte allocation class: a few bytes more would cost 1,024."""

MAX_USER_FEATURES = 12


@dataclass(frozen=True, slots=True)
class UserRecord:
    """What batch worked out for one user; arrays are read-only views of the packed bytes.

    item_indices: int32 [n], positions in the snapshot's item table, best first.
    scores: float16 [n], aligned with item_indices, non-negative, non-increasing.
    features: float16 [f], in the order of the application's user features.
    history: int32 [h], item indices the user consumed, newest first.
    """

    item_indices: Int32s
    scores: Float16s
    features: Float16s
    history: Int32s


def pack(record: UserRecord) -> bytes:
    """Header (magic, format, features, candidates, history), int32 ids, int32 history, float16 scores, float16 features."""
    n = len(record.item_indices)
    if len(record.scores) != n:
        raise ContractViolation(f"{n} item indices but {len(record.scores)} scores in one record.")
    if len(record.history) > MAX_HISTORY or len(record.features) > MAX_USER_FEATURES:
        raise ContractViolation(
            f"A record holds {len(record.history)} history items and {len(record.features)} features; "
            f"at most {MAX_HISTORY} and {MAX_USER_FEATURES} fit."
        )
    header = _HEADER.pack(_MAGIC, _FORMAT, len(record.features), n, len(record.history))
    return b"".join(
        (
            header,
            record.item_indices.astype("<i4", copy=False).tobytes(),
            record.history.astype("<i4", copy=False).tobytes(),
            record.scores.astype("<f2", copy=False).tobytes(),
            record.features.astype("<f2", copy=False).tobytes(),
        )
    )


def pack_bytes(*, item_indices: bytes, scores: bytes, features: bytes, history: bytes) -> bytes:
    """`pack` of arrays that lie there as little-endian bytes already; the caller answers for their lengths."""
    header = _HEADER.pack(_MAGIC, _FORMAT, len(features) // 2, len(item_indices) // 4, len(history) // 4)
    return b"".join((header, item_indices, history, scores, features))


def unpack(payload: bytes) -> UserRecord:
    """The inverse of `pack`, without copying. Raises ContractViolation on anything that `pack` did not write."""
    if len(payload) < HEADER_BYTES:
        raise ContractViolation(f"A packed record has {len(payload)} bytes; its header alone has {HEADER_BYTES}.")
    magic, layout, n_features, n, n_history = _HEADER.unpack_from(payload)
    wanted = HEADER_BYTES + 6 * n + 4 * n_history + 2 * n_features
    if magic != _MAGIC or layout != _FORMAT or len(payload) != wanted:
        raise ContractViolation(
            f"A packed record starts with {payload[:3]!r} and has {len(payload)} bytes; "
            f"wanted {_MAGIC + bytes([_FORMAT])!r} and {wanted}."
        )
    at = HEADER_BYTES
    item_indices = np.frombuffer(payload, "<i4", n, at)
    at += 4 * n
    history = np.frombuffer(payload, "<i4", n_history, at)
    at += 4 * n_history
    scores = np.frombuffer(payload, "<f2", n, at)
    features = np.frombuffer(payload, "<f2", n_features, at + 2 * n)
    return UserRecord(item_indices, scores, features, history)


@dataclass(frozen=True, slots=True)
class ScoreMap:
    """The declared, non-negative, strictly increasing map from a raw inner product to the stored score.

    stored = softplus(x / scale) = log(1 + exp(x / scale)). It is about x / scale for good candidates and decays
    exponentially for poor ones, so float16 (11 bits of precision at every magnitude) keeps the order at both ends.
    """

    scale: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise ContractViolation(f"The score map's scale is {self.scale}; wanted a positive number.")

    def stored(self, inner_products: Float32s) -> Float16s:
        """float32 [...] -> float16 [...] of the same shape, clipped to float16's finite range."""
        scaled = np.asarray(inner_products, np.float32) / np.float32(self.scale)
        mapped = np.logaddexp(np.float32(0), scaled)
        return np.minimum(mapped, np.float32(65504)).astype(np.float16)

    def ordered(self, item_indices: NDArray[np.integer], inner_products: Float32s) -> tuple[Int32s, Float16s]:
        """One user's hits as they are stored: highest stored score first, ties by the lower item index."""
        scores = self.stored(inner_products)
        order = np.lexsort((item_indices, -scores.astype(np.float32)))
        return item_indices[order].astype(np.int32), scores[order]


def is_ordered(item_indices: Int32s, scores: Float16s) -> bool:
    """True where scores never rise and equal scores have rising item indices."""
    if len(scores) < 2:
        return True
    falls = scores[1:] < scores[:-1]
    ties = (scores[1:] == scores[:-1]) & (item_indices[1:] > item_indices[:-1])
    return bool(np.all(falls | ties))
