"""What makes the world believable: skew, newcomers, drift, sessions, purchases, busy hours."""

from __future__ import annotations

import numpy as np
import pandas as pd

from infra.local.world.generate import invent
from tests.unit.infra.local.world.conftest import Written

BREAK_S = 30 * 60


def sessions(events: pd.DataFrame) -> pd.DataFrame:
    """Events by user and time, with `session` counted over all: a pause of half an hour begins a new one."""
    ordered = events.sort_values(["user_id", "event_time"], kind="stable", ignore_index=True)
    pause_s = ordered.groupby("user_id").event_time.diff().dt.total_seconds()
    ordered["session"] = (pause_s.isna() | (pause_s > BREAK_S)).cumsum()
    return ordered


def test_a_few_items_draw_much_of_the_attention(written: Written) -> None:
    counts = written.events.item_id.value_counts().reindex(written.items.item_id, fill_value=0).to_numpy()
    counts = np.sort(counts)[::-1]
    assert 0.35 < counts[:60].sum() / counts.sum() < 0.7, "the best tenth of the items"
    assert (counts[300:].sum() / counts.sum()) > 0.05, "the tail lives"


def test_some_users_come_often_and_some_never(written: Written) -> None:
    counts = written.events.user_id.value_counts().reindex(written.users.user_id, fill_value=0).to_numpy()
    assert 0 < (counts == 0).mean() < 0.15
    assert np.quantile(counts, 0.9) > 4 * np.median(counts[counts > 0]) / 2


def test_nobody_meets_an_item_before_it_appears(written: Written) -> None:
    born = written.items.set_index("item_id").first_seen.loc[written.events.item_id].to_numpy()
    assert (written.events.event_time.to_numpy() >= born).all()


def test_new_items_appear_all_the_time_and_are_noticed_soon(written: Written) -> None:
    items = written.items.set_index("item_id")
    born_day = (items.first_seen - pd.Timestamp(written.size.start)).dt.total_seconds() / 86_400
    new = born_day[born_day > 0]
    assert 0.15 < len(new) / len(items) < 0.35
    assert all(((new >= week) & (new < week + 7)).any() for week in (0, 7, 14, 21))
    early = new[new < 14]
    events = written.events[written.events.item_id.isin(early.index)]
    age_days = events.day - early.loc[events.item_id].to_numpy()
    per_day_young = (age_days < 5).sum() / 5
    per_day_older = ((age_days >= 9) & (age_days < 14)).sum() / 5
    assert per_day_young > 1.3 * per_day_older, "newness helps, then wears off"


def test_tastes_drift(written: Written) -> None:
    """The early choices fit the taste at the start better, the late ones the taste at the end."""
    world = invent(written.size)
    numbers = {name: written.events[f"{name}_id"].str[1:].astype(int).to_numpy() for name in ("user", "item")}
    vectors = world.items.vectors[numbers["item"]]
    toward_end = np.einsum("nd,nd->n", vectors, world.people.taste_end[numbers["user"]]) - np.einsum(
        "nd,nd->n", vectors, world.people.taste_start[numbers["user"]]
    )
    day = written.events.day.to_numpy()
    first, last = toward_end[day < 7], toward_end[day >= 21]
    error = np.hypot(first.std() / np.sqrt(len(first)), last.std() / np.sqrt(len(last)))
    assert last.mean() - first.mean() > 5 * error


def test_events_come_in_sessions_with_a_theme(written: Written) -> None:
    ordered = sessions(written.events)
    length = ordered.groupby("session").size()
    assert 3 < length.mean() < 7 and length.quantile(0.99) <= 32
    genre = written.items.set_index("item_id").genres.str[0]
    ordered["genre"] = genre.loc[ordered.item_id].to_numpy()
    previous = ordered.genre.shift()
    other_item = ordered.item_id != ordered.item_id.shift()
    within = (ordered.session == ordered.session.shift()) & other_item
    across = (ordered.session != ordered.session.shift()) & (ordered.user_id == ordered.user_id.shift()) & other_item
    same = ordered.genre == previous
    assert same[within].mean() > 1.5 * same[across].mean()


def test_a_purchase_follows_the_same_users_click_on_that_item(written: Written) -> None:
    ordered = sessions(written.events)
    bought = ordered.event_type == "purchase"
    before = ordered.shift()[bought]
    assert 0.02 < bought.mean() < 0.25
    same = (before.user_id == ordered[bought].user_id) & (before.item_id == ordered[bought].item_id)
    clicked = same & (before.event_type == "click")
    assert clicked.mean() > 0.98, "two sessions of one user may lie in each other"


def test_dear_items_are_bought_less_than_cheap_ones(written: Written) -> None:
    price = written.items.set_index("item_id").price.loc[written.events.item_id].to_numpy()
    bought = (written.events.event_type == "purchase").to_numpy()
    clicked = (written.events.event_type == "click").to_numpy()
    dear, cheap = price > np.quantile(price, 0.8), price < np.quantile(price, 0.2)
    assert bought[cheap].sum() / clicked[cheap].sum() > 1.5 * bought[dear].sum() / clicked[dear].sum()


def test_weekends_are_busy_and_the_site_grows(written: Written) -> None:
    counts = written.events.groupby(written.events.day.astype(int).clip(upper=27)).size().to_numpy().reshape(4, 7)
    weekend, workdays = counts[:, 5:].mean(), counts[:, :5].mean()
    assert weekend > 1.15 * workdays
    assert counts[3].sum() > 1.2 * counts[0].sum()


def test_evenings_are_busier_than_nights_where_the_user_lives(written: Written) -> None:
    home = written.users.set_index("user_id").country
    german = written.events[home.loc[written.events.user_id].isin(["DE", "FR", "ES", "PL"]).to_numpy()]
    hour = (german.event_time.dt.hour + 1) % 24
    assert hour.between(18, 22).sum() > 5 * hour.between(1, 5).sum()
