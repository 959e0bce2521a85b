"""applying: slices that are counted and applied one after another behind one claim, outside of a worker's loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from infra.contracts.features import FeaturePlan
from infra.eventlog.protocol import Slice
from infra.nearline.counting import Horizon, counted, counted_once, within_one_half
from infra.nearline.state import Changes, Claim, StateStore
from infra.nearline.worker import PAGE


async def apply_all(
    pieces: Iterable[Slice], claim: Claim, store: StateStore, plan: FeaturePlan, *, horizon: Horizon | None
) -> Claim:
    """Count the slices, which begin at the claim's offset, page by page. Returns the claim with the offset that was reached.

    horizon: of a log that does not find duplicates itself; else None. Raises Fenced, with all pages before it applied, and
    DependencyUnavailable.
    """
    for piece in pieces:
        for page in in_pages(piece, PAGE):
            for part in [page] if horizon is None else within_one_half(page, horizon):
                changes = counted(part, plan) if horizon is None else await counted_once(part, plan, store, horizon)
                claim = await apply_one(changes, claim, store)
    return claim


async def apply_one(changes: Changes, claim: Claim, store: StateStore) -> Claim:
    """Apply one shard's changes; returns the claim behind them. Raises Fenced, DependencyUnavailable."""
    fenced = (await store.apply({claim.shard: claim}, {claim.shard: changes}))[claim.shard]
    if fenced is not None:
        raise fenced
    return replace(claim, offset=changes.upto)


def in_pages(piece: Slice, size: int) -> Iterator[Slice]:
    """The slice in parts of at most so many records; together they reach as far as it does."""
    after = piece.after
    for at in range(0, max(len(piece.offsets), 1), size):
        chosen = slice(at, at + size)
        is_last = at + size >= len(piece.offsets)
        upto = piece.upto if is_last else piece.offsets[at + size - 1]
        yield Slice(piece.shard, after, upto, piece.offsets[chosen], piece.logged_ms[chosen], piece.payloads[chosen])
        after = upto
