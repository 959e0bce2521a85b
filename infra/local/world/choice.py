"""choice: the true mathematics of the world: what draws a user to an item at a moment; used to invent events and to judge.

In a session a user has a page of items before him and takes those of the highest utility (a random-utility model):

    P(item on the page) = SHARE_MIX * mixture[u, g] * weight[i, t] / sum of weights in g  +  SHARE_ANY * weight[i, t] / sum
    utility = TASTE * <taste_u(t), v_i>  -  AGE * ((age_u - target_i) / AGE_SPREAD)^2
            + THEME * <v_last, v_i> + CREATOR * [same creator as the last]          (only within a session)
            + Gumbel noise
    weight[i, t] = exp(quality_i + freshness_i * exp(-days since first seen / FRESH_DAYS) + trend[genre, week])

so the log of the chance that u takes i at t is, but for the session's theme and a constant of u and t,
log P(item on the page) + utility without noise. Quality, freshness and trend are in no user's taste vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.local.world.catalogue import Catalogue, Floats
from infra.local.world.names import GENRES
from infra.local.world.size import DAY_US, TREND_STREAM, WorldSize

TASTE = 8.0
AGE, AGE_SPREAD = 0.9, 18.0
THEME, CREATOR = 1.6, 0.9
FRESH_DAYS = 9.0
SHARE_MIX, SHARE_ANY = 5 / 6, 1 / 6


@dataclass(frozen=True, slots=True)
class Attention:
    """Which items are before people's eyes on one day. log_weight: float32 [items], -inf where not born yet.

    genre_total: float64 [genres], the sum of the weights of the items whose primary genre it is.
    """

    log_weight: Floats
    genre_total: NDArray[np.float64]


def invent_trend(size: WorldSize) -> Floats:
    """float32 [weeks + 1, genres]: fashions, a random walk in logits; between two weeks it is a straight line."""
    steps = size.rng(TREND_STREAM).normal(0, 0.16, (size.days // 7 + 2, len(GENRES)))
    return np.cumsum(steps, axis=0).astype(np.float32)


def attention(items: Catalogue, trend: Floats, *, start_us: int, at_us: int) -> Attention:
    """The weights at a moment."""
    days_old = (at_us - items.first_seen_us) / DAY_US
    week = np.clip((at_us - start_us) / (7 * DAY_US), 0, len(trend) - 1.001)
    below = int(week)
    fashion = trend[below] + (week - below) * (trend[below + 1] - trend[below])
    fresh = items.freshness * np.exp(-np.maximum(days_old, 0) / FRESH_DAYS)
    log_weight = np.where(days_old >= 0, items.quality + fresh + fashion[items.genres[:, 0]], -np.inf)
    total = np.bincount(items.genres[:, 0], weights=np.exp(log_weight), minlength=len(GENRES)).astype(np.float64)
    return Attention(log_weight.astype(np.float32), total)


def taste_share(at_us: int, *, start_us: int, days: int) -> float:
    """How far tastes have moved from their start to their end, 0 to 1."""
    return float(np.clip((at_us - start_us) / (days * DAY_US), 0, 1))


def taste_at(start: Floats, end: Floats, share: float) -> Floats:
    """float32 [n, TASTE_DIM]: the straight mixture, not scaled to unit length."""
    return start + np.float32(share) * (end - start)


def age_misfit(age_years: Floats, target: Floats) -> Floats:
    """What the distance in age costs, in logits; the two broadcast."""
    return np.float32(AGE) * ((age_years - target) * np.float32(1 / AGE_SPREAD)) ** 2


def buying(liking: Floats, *, thrift: Floats, price: Floats, base: float) -> Floats:
    """The chance that what was clicked is bought: it rises with the liking and falls with the price; all broadcast."""
    logit = base + 2.5 * liking - thrift * (np.log(price) - 2.6)
    return np.asarray(1.0 / (1.0 + np.exp(-logit)), np.float32)
