"""forms: the fields that Airflow shows before a run: titles, help, and what the server accepts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from airflow.sdk import Param

from infra.catalog.applications import APPLICATIONS
from infra.config.settings import Settings

FORMATS = ("auto", "movielens", "csv", "jsonl", "parquet", "world")
EMBEDDERS = ("spectral", "als")

_MARKDOWN = re.compile(r"[\\`*_~<>\[\]|]")
"""What a path may hold and Markdown would take for its own. (Bold, not code: Airflow lays code over the next line.)"""


def refresh_form(*, chosen: Settings, source: str) -> dict[str, Param]:
    """The fields of a snapshot refresh. Every default is None: the setting counts, and the help says what it is now."""
    return {
        "source": Param(
            None,
            title="Source of the events",
            description_md=f"A path on the machine that runs the jobs, or an fsspec URL (**s3://bucket/events**). {_now(source)}",
            type=["null", "string"],
            minLength=1,
            maxLength=4096,
        ),
        "format": _choice(
            "Format",
            "How to read the source. **auto** recognises MovieLens folders and usual file endings; **world** is the "
            "sample world that **make demo** generates.",
            FORMATS,
            empty="recognise it",
        ),
        "mapping": Param(
            None,
            title="Column mapping",
            description_md="For your own CSV, JSONL or Parquet: which column is what, such as "
            "**user=customer_id,item=sku,time=ts,type=event,value=price**. Empty: the usual names are looked for.",
            type=["null", "string"],
            pattern=r"^(user|item|time|type|value)=[^,=]+(,(user|item|time|type|value)=[^,=]+)*$",
        ),
        "max_rejected_fraction": _number(
            "Bad rows allowed",
            "Share of unusable rows (0 to 1) above which the import fails and changes nothing.",
            chosen.max_rejected_fraction,
            kind="number",
            low=0,
            high=1,
        ),
        "embedder": _choice(
            "Embedder",
            "How users and items become vectors: **spectral** (better at the head of the list) or **als**.",
            EMBEDDERS,
            empty=f"the setting, now {chosen.embedder}",
        ),
        "embedding_dim": _number(
            "Dimensions",
            "Width of the vectors: more is better and slower.",
            chosen.embedding_dim,
            low=4,
            high=2048,
        ),
        "candidates_per_user": _number(
            "Candidates a user",
            "How many items the service may rank for one user. About 6 KB of Redis a user at 1000.",
            chosen.candidates_per_user,
            low=10,
            high=10_000,
        ),
        "include_seen": _choice(
            "Items already consumed",
            "**leave out** retrieves only what the user has not consumed; **include** also the rest (customers buy again).",
            ("leave out", "include"),
            empty=f"the setting, now {'include' if chosen.include_seen else 'leave out'}",
        ),
        "ranker_trees": _number(
            "Trees of the ranker",
            "More trees rank better and slower. 0: no ranker is learnt, lists keep the order of retrieval.",
            chosen.ranker_trees,
            low=0,
            high=2000,
        ),
    }


def rollback_form() -> dict[str, Param]:
    """The fields of a rollback: two of three may stay as they are."""
    names = sorted(APPLICATIONS)
    return {
        "application": Param(
            names[0],
            title="Application",
            description_md="Whose alias **predictions_current** moves.",
            type="string",
            enum=names,
            values_display={name: f"{APPLICATIONS[name].title} ({name})" for name in names},
        ),
        "version": Param(
            None,
            title="Version",
            description_md="Such as **v12**. Empty: the version before the live one. A later version is fine (rolling forward).",
            type=["null", "string"],
            pattern=r"^(predictions_)?v[1-9][0-9]{0,8}$",
        ),
        "reason": Param(
            title="Reason",
            description_md="For the records and for whoever is on call next: what was wrong with the live version?",
            type="string",
            minLength=5,
            maxLength=500,
        ),
    }


def _choice(title: str, description: str, values: Sequence[str], *, empty: str) -> Param:
    """empty: what the list shows for no choice."""
    return Param(
        None,
        title=title,
        description_md=description,
        type=["null", "string"],
        enum=[None, *values],
        values_display={"null": empty},
    )


def _number(title: str, description: str, setting: float, *, low: float, high: float, kind: str = "integer") -> Param:
    text = f"{description} {_now(f'{setting:,}')}"
    return Param(None, title=title, description_md=text, type=["null", kind], minimum=low, maximum=high)


def _now(value: str) -> str:
    plain = _MARKDOWN.sub(r"\\\g<0>", value)
    return f"Empty: the setting, now **{plain}**." if value else "Empty: the setting, which is empty now."
