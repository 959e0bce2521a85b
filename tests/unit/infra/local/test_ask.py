"""Answers as tables: other people's titles reach the terminal as text and nothing else."""

from __future__ import annotations

from rich.console import Console

from infra.local.ask import Answer


def answer(**changed: object) -> Answer:
    fields: dict[str, object] = {
        "user_id": "u1",
        "snapshot": "predictions_v2",
        "items": [{"item_id": "i1", "title": "A film", "genres": ["Drama"], "source": "retrieval", "score": 0.5124}],
        "decided_by": "ranker",
        "degraded": False,
        "stage_ms": {"source": 0.4, "ranker": 1.25},
    }
    return Answer(**(fields | changed))  # type: ignore[arg-type]


def shown(one: Answer) -> str:
    console = Console(width=100, force_terminal=False)
    with console.capture() as capture:
        console.print(one.table())
    return capture.get()


def test_an_item_is_shown_with_its_title_source_and_score() -> None:
    text = shown(answer())
    assert "for u1, from predictions_v2" in text
    assert all(part in text for part in ("A film", "Drama", "retrieval", "0.512"))


def test_control_characters_and_markup_in_a_title_stay_harmless() -> None:
    text = shown(
        answer(items=[{"item_id": "i1", "title": "\x1b[31mred\n[bold]x[/]", "source": "popular", "score": 1.0}])
    )
    assert "\x1b" not in text and "[bold]x[/]" in text


def test_an_item_without_a_title_is_shown_by_its_id() -> None:
    assert "i9" in shown(answer(items=[{"item_id": "i9", "title": None, "source": "popular", "score": 1.0}]))


def test_the_stages_tell_who_decided() -> None:
    assert answer().stages() == "decided by ranker; milliseconds: source 0.40, ranker 1.25"
    assert answer(degraded=True).stages().startswith("degraded")
