"""columns: which of a file's columns is the user, the item, the time, the type and the value: as mapped, else by usual names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from infra.contracts.errors import DataRefused, InvalidRequest

EVENT_FIELDS = ("user", "item", "time", "type", "value")
NO_TIME = "none"
"""`--map time=none`: the data has no times; the order of its lines stands for time."""

USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "user": ("user", "userid", "uid", "customer", "customerid", "member", "memberid", "visitor", "visitorid", "reviewerid",
             "sessionid", "account", "accountid"),
    "item": ("item", "itemid", "iid", "movie", "movieid", "product", "productid", "sku", "article", "articleid", "video",
             "videoid", "track", "trackid", "book", "bookid", "business", "businessid", "asin", "listing", "listingid"),
    "time": ("time", "timestamp", "ts", "eventtime", "eventtimestamp", "datetime", "date", "createdat", "occurredat",
             "unixreviewtime", "tdat"),
    "type": ("type", "eventtype", "event", "action", "eventname", "behavior", "behaviour", "behaviortype"),
    "value": ("value", "rating", "ratings", "stars", "score", "overall", "price", "amount", "weight"),
    "item_id": ("itemid", "item", "id", "movieid", "productid", "sku", "articleid", "videoid", "asin"),
    "title": ("title", "name", "itemname", "productname"),
    "genres": ("genres", "genre", "categories", "category", "tags"),
    "creator": ("creator", "brand", "seller", "author", "artist", "publisher", "channel"),
    "first_seen": ("firstseen", "createdat", "publishedat", "releasedate", "addedat"),
    "user_id": ("userid", "user", "id", "customerid", "memberid", "visitorid"),
    "age_years": ("ageyears", "age"),
    "gender": ("gender", "sex"),
    "country": ("country", "countrycode"),
}  # fmt: skip
"""Compared without case and punctuation; the first that a file has counts."""

RATING_NAMES = ("rating", "ratings", "stars", "score", "overall")
"""Where the value's column is called so and there is no type, the events are ratings."""

TYPE_WITHOUT_COLUMN = "event"


def parse_mapping(text: str) -> dict[str, str]:
    """`user=customer_id,item=sku` -> a dict; raises InvalidRequest for anything else."""
    mapping: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        field, _, column = (side.strip() for side in part.partition("="))
        if field not in EVENT_FIELDS or not column:
            raise InvalidRequest(
                f"--map says {part!r}; wanted FIELD=COLUMN with FIELD one of {', '.join(EVENT_FIELDS)}.",
                mend="Such as: --map user=customer_id,item=sku,time=ts",
            )
        if field in mapping:
            raise InvalidRequest(f"--map names {field} twice: {mapping[field]} and {column}.")
        mapping[field] = column
    return mapping


def positions_only(mapping: Mapping[str, str]) -> bool:
    """Whether the columns are named by their numbers, as in a file without a header: `user=1,item=2,time=4`."""
    named = [column for field, column in mapping.items() if (field, column) != ("time", NO_TIME)]
    return bool(named) and all(column.isdecimal() for column in named)


def event_columns(file: str, names: Sequence[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """field -> column name for one file of events; `time` is missing from it where the data has none."""
    chosen: dict[str, str] = {}
    for field in EVENT_FIELDS:
        asked = mapping.get(field)
        if field == "time" and asked == NO_TIME:
            continue
        if asked is not None and asked not in names:
            raise InvalidRequest(f"--map says {field}={asked}; {file} has the columns {listed(names)}.")
        column = asked or usual(field, [name for name in names if name not in mapping.values()])
        if column is not None:
            chosen[field] = column
    for field in ("user", "item", "time"):
        if field not in chosen and not (field == "time" and mapping.get("time") == NO_TIME):
            raise DataRefused(_missing(file, field, names), mend=_mend(field))
    return chosen


def side_columns(file: str, names: Sequence[str], *, key: str, others: Sequence[str]) -> dict[str, str]:
    """field -> column name for a table of items or users; only the key must be there."""
    chosen = {field: column for field in (key, *others) if (column := usual(field, names)) is not None}
    if key not in chosen:
        raise DataRefused(
            _missing(file, key, names), mend=f"Call the column {key}, or move {file} out of the source's folder."
        )
    return chosen


def usual(field: str, names: Sequence[str]) -> str | None:
    """The column that has a usual name for the field."""
    by_plain = {_plain(name): name for name in reversed(names)}
    return next((by_plain[name] for name in USUAL_NAMES[field] if name in by_plain), None)


def type_without_column(value_column: str | None) -> str:
    """What events are called where no column says it."""
    return "rating" if value_column and _plain(value_column) in RATING_NAMES else TYPE_WITHOUT_COLUMN


def listed(names: Sequence[str]) -> str:
    """Column names for a message."""
    few = ", ".join(repr(name[:60]) for name in names[:20])
    return few + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _missing(file: str, field: str, names: Sequence[str]) -> str:
    wanted = ", ".join(USUAL_NAMES[field][:4])
    return f"{file} has no column for the {field} (looked for {wanted}, ...); it has {listed(names)}."


def _mend(field: str) -> str:
    mend = f"Name it: --map {field}=COLUMN; a CSV without a header takes numbers: --map user=1,item=2,time=3."
    return mend + (
        " If the data has no times: --map time=none lets the order of lines stand for time." * (field == "time")
    )
