"""forms: the fields that Airflow shows before a run, or where a run asks: titles, help, and what the server accepts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from airflow.sdk import Param

from infra.catalog.applications import APPLICATIONS
from infra.config.settings import Settings
from infra.contracts.break_glass import REASON_AT_LEAST
from infra.contracts.canaries import CanaryMode

FORMATS = ("auto", "movielens", "csv", "jsonl", "parquet", "world")
EMBEDDERS = ("spectral", "als")
REASON_LENGTH = (5, 500)
"""Characters of a reason, at least and at most."""
CANARY_FRACTION = 0.05
"""Of the users, where a canary is started by hand and the setting has none."""
CANARY_HOURS_AT_MOST = 14 * 24

_VERSION_PATTERN = r"^(predictions_)?v[1-9][0-9]{0,8}$"

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
        "approval": _choice(
            "Approval",
            "**ask**: the run waits for somebody to approve the snapshot before it goes live. It cannot be chosen away where "
            "the setting is on.",
            ("ask",),
            empty=f"the setting, now {'ask' if chosen.approval else 'do not ask'}",
        ),
        "canary_fraction": _number(
            "Canary",
            "Share of the users (up to 0.5) who are shown the snapshot before it goes live for all; what they do decides whether "
            "it does. 0: no canary.",
            chosen.canary_fraction,
            kind="number",
            low=0,
            high=0.5,
        ),
    }


def approval_form() -> dict[str, Param]:
    """The field of an answer to the question whether a snapshot may go live."""
    return {
        "note": Param(
            "",
            title="Why",
            description_md="For the records: why it may, or may not, go live.",
            type="string",
            maxLength=REASON_LENGTH[1],
        )
    }


def rollback_form() -> dict[str, Param]:
    """The fields of a rollback: two of three may stay as they are."""
    return {
        "application": _application(),
        "version": Param(
            None,
            title="Version",
            description_md="Such as **v12**. Empty: the version before the live one. A later version is fine (rolling forward).",
            type=["null", "string"],
            pattern=_VERSION_PATTERN,
        ),
        "reason": _reason("what was wrong with the live version?"),
    }


def promote_form() -> dict[str, Param]:
    """The fields of a promotion: it is on purpose, so the version must be named."""
    return {
        "application": _application(),
        "version": _version("Such as **v12**: one that the gate has passed."),
        "reason": _reason("why this version, and why not by its own build?"),
        "break_glass": Param(
            False,
            title="Past failed checks",
            description_md="Break-glass: also a version that the gate has **refused**, where it can be served all the same. "
            f"Only for the users that the operator has named, with a reason of at least {REASON_AT_LEAST} characters; all of "
            "it is recorded.",
            type="boolean",
        ),
    }


def canary_form(*, chosen: Settings) -> dict[str, Param]:
    """The fields of a canary by hand: which version, for how many users, seen or unseen, and for how long at most."""
    return {
        "application": _application("Beside whose live snapshot it is tried."),
        "version": _version("Such as **v12**: one that the gate has passed and that is not live."),
        "fraction": Param(
            chosen.canary_fraction or CANARY_FRACTION,
            title="Share of the users",
            description_md="**0.05** is one user in twenty. A canary takes up to 0.5, a shadow up to 1.",
            type="number",
            minimum=0.001,
            maximum=1,
        ),
        "mode": Param(
            CanaryMode.CANARY.value,
            title="Mode",
            description_md="**canary**: these users are shown its lists, and what they do decides whether it goes live. "
            "**shadow**: their requests are scored with it unseen; it never goes live by itself.",
            type="string",
            enum=[mode.value for mode in CanaryMode],
            values_display={"canary": "canary: users see it", "shadow": "shadow: scored unseen"},
        ),
        "hours": _number(
            "Hours at most",
            "What is not decided by then is ended, and does not go live.",
            chosen.canary_hours,
            kind="number",
            low=0.01,
            high=CANARY_HOURS_AT_MOST,
        ),
        "reason": _reason("why is this version tried?"),
    }


def canary_end_form() -> dict[str, Param]:
    """The fields that end a canary by hand."""
    return {
        "application": _application("Whose canary or shadow ends."),
        "version": _version("Such as **v12**: the one that is tried. Where another is tried by now, nothing happens."),
        "reason": _reason("why is it ended before it was decided?"),
    }


def _application(whose: str = "Whose alias **predictions_current** moves.") -> Param:
    names = sorted(APPLICATIONS)
    return Param(
        names[0],
        title="Application",
        description_md=whose,
        type="string",
        enum=names,
        values_display={name: f"{APPLICATIONS[name].title} ({name})" for name in names},
    )


def _version(description: str) -> Param:
    return Param(title="Version", description_md=description, type="string", pattern=_VERSION_PATTERN)


def _reason(question: str) -> Param:
    return Param(
        title="Reason",
        description_md=f"For the records and for whoever is on call next: {question}",
        type="string",
        minLength=REASON_LENGTH[0],
        maxLength=REASON_LENGTH[1],
    )


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
    return f"Empty: the setting, now **{plain(value)}**." if value else "Empty: the setting, which is empty now."


def plain(text: object) -> str:
    """One line of text as Markdown shows it unchanged."""
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(str(text).split()))
