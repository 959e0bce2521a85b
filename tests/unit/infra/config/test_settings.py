"""Settings: read once, validated once, an error that names the variable."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.config.settings import Settings, settings
from infra.contracts.errors import OperatorError


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_a_bad_value_names_its_variable_and_what_was_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_FRESHNESS_SLO_HOURS", "x")
    monkeypatch.setenv("HEADGATE_EMBEDDER", "word2vec")
    with pytest.raises(OperatorError) as raised:
        settings()
    assert "HEADGATE_FRESHNESS_SLO_HOURS=x: " in str(raised.value)
    assert "HEADGATE_EMBEDDER=word2vec: Input should be 'spectral' or 'als'" in str(raised.value)
    assert "docs/settings.md" in raised.value.mend


def test_the_embedded_redis_and_the_store_follow_from_port_and_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADGATE_REDIS_URL", raising=False)
    monkeypatch.delenv("HEADGATE_STORE", raising=False)
    monkeypatch.setenv("HEADGATE_REDIS_PORT", "6999")
    monkeypatch.setenv("HEADGATE_HOME", "/somewhere")
    chosen = settings()
    assert chosen.redis_url.get_secret_value() == "redis://127.0.0.1:6999/0" and chosen.embedded_redis
    assert chosen.store == "/somewhere/store"
    monkeypatch.setenv("HEADGATE_REDIS_URL", "redis://elsewhere:6379/0")
    assert not Settings().embedded_redis


def test_nobody_may_break_glass_until_somebody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADGATE_BREAK_GLASS_USERS", raising=False)
    assert Settings().may_break_glass == frozenset()
    monkeypatch.setenv("HEADGATE_BREAK_GLASS_USERS", "ada, airflow:bea,")
    assert Settings().may_break_glass == {"ada", "airflow:bea"}


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
