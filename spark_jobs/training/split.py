"""split: where the past ends: two cuts in time, so that no feature sees the events that it is to predict."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from infra.contracts.errors import DataRefused

SplitKind = Literal["global", "per_user"]
Wanted = Literal["auto", "global", "per_user"]

HISTORY, TRAIN, HELD_OUT = 0, 1, 2
"""Phases of an event: before the first cut, between the two, from the second cut on."""

WINDOWS_DAYS = (1, 2, 3, 5, 7, 10, 14, 21, 28)
"""Label windows tried, shortest first: a daily snapshot serves about a day, so one day is the window most like serving."""

WANTED_USERS = 1000
"""Users with a history before and labels inside a window that make the window long enough."""

ENOUGH_USERS_FRACTION = 0.05
ENOUGH_USERS_MIN = 20
"""Below this share of the users (and this number) a global cut learns from the few who straddle it: split each user instead."""

LONGEST_WINDOW_FRACTION = 0.25
"""A window takes at most this share of the data's time range, so that at least half of the range is history."""

PER_USER_FRACTION = 0.15
"""Per-user split: share of each user's own events that a label window takes."""


@dataclass(frozen=True, slots=True)
class GlobalSplit:
    """Two moments for everybody: history < train_from <= training labels < held_out_from <= held-out labels."""

    train_from: datetime
    held_out_from: datetime
    window: timedelta
    because: str

    kind: SplitKind = "global"

    def moments(self, last_event: datetime) -> tuple[datetime, datetime]:
        """What features speak as of: the two cuts."""
        return self.train_from, self.held_out_from

    def describe(self) -> str:
        """One sentence for the manifest and the report."""
        return (
            f"global temporal split: features as of {_minute(self.train_from)}, labels until "
            f"{_minute(self.held_out_from)}; held out: everything from {_minute(self.held_out_from)} on "
            f"({_span(self.window)} each; {self.because})"
        )


@dataclass(frozen=True, slots=True)
class PerUserSplit:
    """Two moments for each user, at her own latest events. Other users' later events stay visible: a weaker promise."""

    fraction: float
    because: str

    kind: SplitKind = "per_user"

    def moments(self, last_event: datetime) -> tuple[datetime, datetime]:
        """What features speak as of: the data's end, as in the snapshot itself, for what a user did before her cuts."""
        return last_event, last_event

    def describe(self) -> str:
        """One sentence for the manifest and the report."""
        return (
            f"per-user temporal split: each user's last {self.fraction:.0%} of events held out, the {self.fraction:.0%} "
            f"before them are training labels ({self.because}); no user's own future is seen, but other users' later "
            "events are part of the embeddings and the popularity"
        )


Split = GlobalSplit | PerUserSplit


@dataclass(frozen=True, slots=True)
class WindowFit:
    """How many users one window would teach from (`train`) and judge by (`held_out`)."""

    days: float
    train: int
    held_out: int

    @property
    def users(self) -> int:
        """The scarcer of the two."""
        return min(self.train, self.held_out)


def fit_window(users: NDArray[np.integer], ages_days: NDArray[np.float64], *, days: float) -> WindowFit:
    """Count the users with a history before each of the two windows and an event inside it.

    users: int [events], 0..n-1; ages_days: float64 [events], days between the event and the end of the data.
    """
    n_users = int(users.max()) + 1 if len(users) else 0

    def having(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        found = np.zeros(n_users, bool)
        found[users[mask]] = True
        return found

    newest, middle = ages_days <= days, (ages_days > days) & (ages_days <= 2 * days)
    oldest = ages_days > 2 * days
    train = having(middle) & having(oldest)
    held_out = having(newest) & having(~newest)
    return WindowFit(days, int(train.sum()), int(held_out.sum()))


def choose(
    users: NDArray[np.integer],
    ages_days: NDArray[np.float64],
    *,
    end: datetime,
    share_sampled: float = 1.0,
    wanted: Wanted = "auto",
) -> Split:
    """The shortest window in which enough users left labels; a split per user where no window has enough.

    users, ages_days: as in `fit_window`, events that count as labels, maybe of a sample of the users (`share_sampled`).
    end: just after the last event. Raises DataRefused where nobody could be learnt from.
    """
    if len(users) == 0:
        raise DataRefused(
            "The dataset has no event that counts as wanting an item (a click, a rating, a purchase).",
            mend="Import events of such types, or map the type column: --map type=...",
        )
    if wanted == "per_user":
        return PerUserSplit(PER_USER_FRACTION, "as asked")
    range_days = float(ages_days.max())
    longest = range_days * LONGEST_WINDOW_FRACTION
    ladder = [float(days) for days in WINDOWS_DAYS if days <= longest] or [range_days / 8]
    fits = [fit_window(users, ages_days, days=days) for days in ladder]
    n_users = len(np.unique(users))
    best = next(
        (fit for fit in fits if fit.users >= WANTED_USERS * share_sampled), max(fits, key=lambda fit: fit.users)
    )
    enough = max(ENOUGH_USERS_MIN * share_sampled, ENOUGH_USERS_FRACTION * n_users)
    if best.users < enough and wanted == "auto":
        return PerUserSplit(
            PER_USER_FRACTION,
            f"the best global window, {_span(timedelta(days=best.days))}, has labels of only "
            f"{best.users} of {n_users} users with a history before it",
        )
    window = timedelta(days=best.days)
    because = f"{best.train / share_sampled:,.0f} users teach, {best.held_out / share_sampled:,.0f} judge"
    return GlobalSplit(end - 2 * window, end - window, window, because)


def phases(events: DataFrame, split: Split, *, wants: Column) -> DataFrame:
    """The events with an int column `phase` (HISTORY, TRAIN or HELD_OUT).

    wants: whether an event counts as a label; a user's own cuts lie at such events. Events at one moment share a phase.
    """
    time = F.col("event_time")
    if isinstance(split, GlobalSplit):
        train_from, held_out_from = F.lit(split.train_from), F.lit(split.held_out_from)
        return events.withColumn("phase", _phase(time, train_from, held_out_from))
    times = F.sort_array(F.collect_list(F.when(wants, time)))
    cuts = (
        events.groupBy("user_index")
        .agg(times.alias("times"))
        .withColumn("n", F.size("times"))
        .withColumn("window", F.greatest(F.lit(1), F.floor(F.col("n") * F.lit(split.fraction)).cast("int")))
        .where(F.col("n") >= 3)
        .select(
            "user_index",
            F.element_at("times", F.col("n") - 2 * F.col("window") + 1).alias("train_from"),
            F.element_at("times", F.col("n") - F.col("window") + 1).alias("held_out_from"),
        )
    )
    joined = events.join(cuts, "user_index", "left")
    phase = _phase(time, F.col("train_from"), F.col("held_out_from"))
    return joined.withColumn("phase", phase).drop("train_from", "held_out_from")


def _phase(time: Column, train_from: Column, held_out_from: Column) -> Column:
    """A user without cuts (nulls) is all history."""
    return F.when(time >= held_out_from, HELD_OUT).when(time >= train_from, TRAIN).otherwise(HISTORY)


def label_ages(
    events: DataFrame, *, wants: Column, end: datetime, n_users: int, max_users: int, seed: int
) -> tuple[NDArray[np.int32], NDArray[np.float64], float]:
    """What `choose` asks for: users, ages in days, and the share of the users that was looked at."""
    share = min(1.0, max_users / max(1, n_users))
    sampled = events.where(wants)
    if share < 1.0:
        sampled = sampled.where(
            F.pmod(F.xxhash64("user_index", F.lit(seed)), F.lit(1_000_000)) < int(share * 1_000_000)
        )
    age = (F.lit(end.timestamp()) - F.unix_micros("event_time") / F.lit(1e6)) / F.lit(86_400.0)
    table = sampled.select("user_index", age.alias("age_days")).toArrow()
    return table["user_index"].to_numpy(), table["age_days"].to_numpy(), share


def _minute(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _span(window: timedelta) -> str:
    days = window / timedelta(days=1)
    return f"{days:g} day{'' if days == 1 else 's'}" if days >= 1 else f"{days * 24:.1f} hours"
