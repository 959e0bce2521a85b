"""names: invented genres, titles, creators and countries; readable, and nobody's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GENRES: tuple[str, ...] = (
    "Action", "Adventure", "Animation", "Comedy", "Cooking", "Crime", "Documentary", "Drama", "Family",
    "Fantasy", "History", "Horror", "Music", "Mystery", "Nature", "Romance", "Science Fiction", "Sport",
)  # fmt: skip

COUNTRIES: tuple[str, ...] = ("US", "IN", "BR", "DE", "GB", "FR", "JP", "MX", "ES", "PL", "KR", "NG")
COUNTRY_SHARES: tuple[float, ...] = (0.24, 0.17, 0.11, 0.09, 0.08, 0.07, 0.06, 0.05, 0.04, 0.03, 0.03, 0.03)
COUNTRY_UTC_HOURS: tuple[float, ...] = (-6, 5.5, -3, 1, 0, 1, 9, -6, 1, 1, 9, 1)
GENDERS: tuple[str, ...] = ("female", "male", "other")

_ADJECTIVES = (
    "Amber", "Silent", "Crooked", "Golden", "Hollow", "Distant", "Scarlet", "Gentle", "Restless", "Frozen", "Velvet",
    "Paper", "Broken", "Hidden", "Electric", "Wandering", "Last", "Little", "Burning", "Northern", "Salted", "Midnight",
    "Painted", "Unwritten", "Copper", "Second", "Quiet", "Thirsty", "Borrowed", "Weightless", "Feral", "Sunday",
)  # fmt: skip
_NOUNS = (
    "Harbour", "Lantern", "Orchard", "Signal", "Staircase", "Kingdom", "Tide", "Market", "Engine", "Mirror", "Garden",
    "Comet", "Bridge", "Letter", "Kitchen", "Forest", "Stadium", "Violin", "Witness", "Caravan", "Glacier", "Map",
    "Machine", "Sparrow", "Detective", "Carnival", "Desert", "Archive", "Puzzle", "Lighthouse", "Recipe", "Wolf",
)  # fmt: skip
_PLACES = (
    "Velm", "Aldora", "Port Sere", "Kestrel Bay", "Ombria", "Low Marsh", "Tarn", "the Ninth Hill", "Isolde Street",
    "Quell", "the Far Shore", "Brindle", "Saint Avery", "Oxmoor", "the Glass City", "Hart Lane",
)  # fmt: skip
_FIRST = ("Mara", "Ilko", "Tess", "Oren", "Juna", "Pavel", "Sanna", "Dario", "Wren", "Amit", "Lotte", "Kofi", "Noor",
          "Emeka", "Yuki", "Rafa")  # fmt: skip
_START = ("Bel", "Kor", "Hal", "Ven", "Ost", "Mar", "Tol", "Quin", "Ash", "Der", "Fen", "Lor")
_END = ("ano", "wick", "sen", "ovic", "mere", "aki", "ford", "ridge", "ell", "eira", "stone", "by")


def titles(words: NDArray[np.int64]) -> list[str]:
    """words: int64 [n, 4] of any non-negative numbers; the same numbers give the same title. Titles may repeat."""
    made = []
    for form, adjective, noun, place in words.tolist():
        what = f"{_ADJECTIVES[adjective % len(_ADJECTIVES)]} {_NOUNS[noun % len(_NOUNS)]}"
        where = _PLACES[place % len(_PLACES)]
        made.append((f"The {what}", f"{what} of {where}", f"A {what}" if what[0] not in "AEIOU" else f"An {what}",
                     f"{what}: {where}", f"The {what} of {where}")[form % 5])  # fmt: skip
    return made


def creator_names(count: int) -> list[str]:
    """That many different names."""
    forms = len(_FIRST) * len(_START) * len(_END)
    made = []
    for number in range(count):
        at = number * 947 % forms  # 947 shares no factor with `forms`: neighbours do not look alike
        first, at = _FIRST[at % len(_FIRST)], at // len(_FIRST)
        name = f"{first} {_START[at % len(_START)]}{_END[at // len(_START)]}"
        made.append(name if number < forms else f"{name} {number // forms + 1}")
    return made
