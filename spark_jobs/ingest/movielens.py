"""movielens: the files of GroupLens, every edition: ml-latest, ml-20m to ml-32m (.csv), ml-1m and ml-10m (.dat), ml-100k (u.*)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from infra.contracts.errors import DataRefused
from spark_jobs.ingest.delimited import Layout, first_record
from spark_jobs.ingest.inputs import InputFile, Source
from spark_jobs.ingest.tables import Table

RATING = "rating"
NO_GENRES = "(no genres listed)"

AGE_OF_GROUP = {1: 15.0, 18: 21.0, 25: 30.0, 35: 40.0, 45: 47.0, 50: 53.0, 56: 60.0}
"""ml-1m says age as the lower end of a group (1 is `under 18`); this is about its middle."""

_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""u.item has a column of 0 and 1 for each, from the sixth on."""

_RATINGS = {"user": 0, "item": 1, "value": 2, "time": 3}
_MOVIES = {"item_id": 0, "title": 1, "genres": 2}
_ARTICLE_LAST = re.compile(r"(.+?), (The|A|An|Le|La|Les|L'|Il|El|Los|Las|Der|Die|Das)((?: \(.*\))?)")


@dataclass(frozen=True, slots=True)
class _Edition:
    """The names of its files, how they are cut, and what stands where. An edition without a file leaves its name empty."""

    delimiter: str
    ratings: str
    movies: str
    users: str
    movie_columns: Mapping[str, int]
    user_columns: Mapping[str, int]
    quoted: bool = False
    movies_delimiter: str = ""


_EDITIONS = (
    _Edition(",", "ratings.csv", "movies.csv", "", _MOVIES, {}, quoted=True),
    _Edition("::", "ratings.dat", "movies.dat", "users.dat", _MOVIES, {"user_id": 0, "gender": 1, "age_years": 2}),
    _Edition(
        "\t",
        "u.data",
        "u.item",
        "u.user",
        {"item_id": 0, "title": 1} | {f"is {name}": at for at, name in enumerate(_GENRES_100K, 5)},
        {"user_id": 0, "age_years": 1, "gender": 2},
        movies_delimiter="|",
    ),
)


@dataclass(frozen=True, slots=True)
class MovieLens:
    """The tables of one download."""

    ratings: Table
    movies: Table | None
    users: Table | None


def find(source: Source) -> MovieLens | None:
    """The first edition whose ratings are there, or None. tags, links and genome scores are not read."""
    for edition in _EDITIONS:
        ratings = _named(source, edition.ratings)
        if ratings is None:
            continue
        movies, users = _named(source, edition.movies), _named(source, edition.users)
        return MovieLens(
            ratings=_table(ratings, edition, _RATINGS, edition.delimiter),
            movies=_table(movies, edition, edition.movie_columns, edition.movies_delimiter or edition.delimiter)
            if movies
            else None,
            users=_table(users, edition, edition.user_columns, edition.movies_delimiter or edition.delimiter)
            if users
            else None,
        )
    return None


def need(source: Source) -> MovieLens:
    """`find`, where the user has said that this is MovieLens."""
    found = find(source)
    if found is None:
        names = ", ".join(file.name for file in source.files[:10]) or "nothing"
        raise DataRefused(
            f"{source.url} holds no ratings.csv, ratings.dat or u.data; it holds {names}.",
            mend="Name the unpacked folder (or the .zip) of a MovieLens download.",
        )
    return found


def title_of(text: str) -> str:
    """`American President, The (1995)` -> `The American President (1995)`."""
    match = _ARTICLE_LAST.fullmatch(text)
    if match is None:
        return text
    name, article, rest = match.groups()
    return f"{article}{'' if article.endswith(chr(39)) else ' '}{name}{rest}"


def age_of(number: float) -> float:
    """ml-1m's groups as years; other editions say years."""
    return AGE_OF_GROUP.get(int(number), number) if math.isfinite(number) else number


def genres_of_flags(columns: Mapping[str, list[str]], n_rows: int) -> list[list[str]]:
    """u.item's columns of 0 and 1 as lists of names."""
    flagged = [(name, columns[f"is {name}"]) for name in _GENRES_100K[1:]]
    return [[name for name, flags in flagged if flags[row] == "1"] for row in range(n_rows)]


def _named(source: Source, name: str) -> InputFile | None:
    """The file of that name, packed or not, in the folder or (in a .zip) one below."""
    if not name:
        return None
    plain = (name, *(name + ending for ending in (".gz", ".bz2", ".xz")))
    return next((file for file in source.files if file.name.rpartition("/")[2].lower() in plain), None)


def _table(file: InputFile, edition: _Edition, wanted: Mapping[str, int], delimiter: str) -> Table:
    fields, _ = first_record(file, delimiter=delimiter, quoted=edition.quoted)
    header = not fields[0].strip().isdecimal()
    if len(fields) <= max(wanted.values()):
        raise DataRefused(
            f"{file.name} has {len(fields)} fields a line; MovieLens has at least {max(wanted.values()) + 1} there.",
            mend="If this is not MovieLens, name its --format and --map its columns.",
        )
    layout = Layout(delimiter, len(fields), header, quoted=edition.quoted, latin_1=not edition.quoted)
    return Table(file, "delimited", positions=dict(wanted), layout=layout, default_type=RATING)
