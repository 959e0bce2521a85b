"""settings: every HEADGATE_* variable, read once, validated once; nobody else reads the environment."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.contracts.errors import OperatorError

CHECKOUT = Path(__file__).resolve().parents[2]


class Settings(BaseSettings):
    """What an operator may set. Sizes are bytes, times seconds, unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="HEADGATE_", frozen=True, extra="ignore")

    home: Path = Field(CHECKOUT / ".headgate", description="where this machine's state lives")
    store: str = Field("", description="datasets and snapshots: a path or an fsspec URL; empty: <home>/store")

    redis_url: SecretStr = Field(SecretStr(""), description="the serving Redis; empty: the embedded one")
    log_redis_url: SecretStr = Field(
        SecretStr(""),
        description="the Redis that holds the event log, or redis+cluster://host:port for a cluster; empty: the serving one",
    )
    redis_port: int = Field(6390, ge=1, le=65535, description="port of the embedded Redis")
    redis_maxmemory_mb: int = Field(2048, ge=64, description="memory limit of the embedded Redis, in MiB")
    memory_limit_fraction: float = Field(
        0.9, gt=0, le=1, description="a load that would pass this share of maxmemory is refused"
    )

    log_duplicate_horizon: int = Field(
        20_000, ge=1, description="records of a shard within which an event that is sent again is found"
    )
    event_log: Literal["redis", "kafka"] = Field("redis", description="what keeps the event log")
    kafka_bootstrap: str = Field(
        "", description="where Kafka answers: host:port, more with commas between; empty: the embedded one"
    )
    kafka_port: int = Field(
        9092, ge=1, le=65534, description="port of the embedded Kafka (`make kafka-up`); it takes the next one too"
    )
    kafka_config: SecretStr = Field(
        SecretStr(""), description="more options of librdkafka, such as those for TLS, as a JSON object; empty: none"
    )
    log_kept_records: int = Field(
        100_000, ge=1, description="records of a shard that stay in the log although every reader has them"
    )
    archive_records: int = Field(20_000, ge=1, description="records of a shard that wait at most for the archive")
    archive_seconds: float = Field(60.0, gt=0, description="how long a record waits at most for the archive")

    airflow_port: int = Field(8080, ge=1, le=65535, description="port of the embedded Airflow")
    ranking_port: int = Field(3000, ge=1, le=65535, description="port of the ranking service")
    service_workers: int = Field(1, ge=1, description="worker processes of each service")

    spark_master: str = Field("local[2]", description="local[n], or spark://host:port for a cluster")
    spark_driver_memory: str = Field("3g", pattern=r"^\d+[gm]$", description="memory of a job's own JVM")
    spark_executor_memory: str = Field("1g", pattern=r"^\d+[gm]$", description="an executor's memory on a cluster")

    embedder: Literal["spectral", "als"] = Field("spectral", description="how users and items become vectors")
    embedding_dim: int = Field(128, ge=4, le=2048, description="width of the vectors")
    candidates_per_user: int = Field(1000, ge=10, le=10_000, description="items a user's list holds")
    include_seen: bool = Field(False, description="also retrieve items that the user has consumed")
    ranker_trees: int = Field(
        100,
        ge=0,
        le=2000,
        description="trees of the XGBoost ranker; 0: none is learnt, lists keep the order of retrieval",
    )
    random_seed: int = Field(20_240_601, ge=0, description="seed of everything that the batch draws")

    ranking_source: str = Field(
        "", description="where the daily refresh of `ranking` reads events: a path or an fsspec URL; empty: none"
    )
    max_rejected_fraction: float = Field(0.01, ge=0, le=1, description="bad rows above this share fail an import")
    keep_versions: int = Field(3, ge=2, description="loaded versions that garbage collection leaves in Redis")
    keep_snapshots: int = Field(30, ge=2, description="the newest snapshots stay on the store whatever their age")
    keep_flips: int = Field(1000, ge=1, description="the newest records of flips stay on the store whatever their age")
    keep_days: float = Field(30.0, gt=0, description="snapshots and flips younger than this stay whatever their number")
    freshness_slo_hours: float = Field(36.0, gt=0, description="the live snapshot may be this old")

    approval: bool = Field(False, description="a refresh asks a person in Airflow before its snapshot goes live")
    approval_hours: float = Field(
        24.0, gt=0, description="how long it waits for the answer; without one nothing goes live"
    )
    break_glass_users: str = Field(
        "",
        description="who may promote past failed checks: names as the records have them, with commas between "
        "(`ada` at a shell, `airflow:ada` in Airflow); empty: nobody",
    )

    canary_fraction: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="share of the users who are shown a refresh's snapshot before it goes live for all; 0: no canary",
    )
    canary_hours: float = Field(
        24.0, gt=0, description="a canary that is not decided after this long is ended; it does not go live by itself"
    )
    canary_users: int = Field(1000, ge=50, description="users a canary needs on either side before it may be decided")
    canary_alpha: float = Field(
        0.05, gt=0, le=0.5, description="chance at most that a canary as good as the live snapshot is rolled back"
    )
    canary_tolerance: float = Field(
        0.1, gt=0, lt=1, description="a canary goes live once its click-through is surely no lower than by this share"
    )
    canary_conversion_tolerance: float = Field(
        0.3, gt=0, lt=1, description="the same for conversions, which are rarer and take more users to be sure of"
    )
    visit_minutes: float = Field(
        30.0, gt=0, description="how long after a user's first list what the user does counts in a canary"
    )
    guard_hours: float = Field(2.0, ge=0, description="how long what went live is watched for a fall; 0: not at all")
    guard_drop: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="a fall of clicks or conversions by more than this share below what was before alarms",
    )
    guard_action: Literal["rollback", "alert"] = Field(
        "rollback", description="what a fall after going live leads to: a rollback, or a failed run for people to see"
    )
    exposure_users: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the users whose lists are logged, always the same ones; canaries are judged by them",
    )
    exposures_kept: int = Field(
        500_000, ge=1000, description="lists shown that the log remembers, about 400 bytes each; the oldest go first"
    )

    decisions_kept: int = Field(
        20_000,
        ge=1000,
        description="answers with all they were made of that the log remembers until they are archived, about 3 kB each",
    )

    require_all: bool = Field(False, description="a missing tool fails a test instead of skipping it")
    proof_size: Literal["small", "full"] = Field("small", description="how large the proofs of the tests are")

    @model_validator(mode="after")
    def _fill(self) -> Settings:
        values = self.__dict__
        if not self.store:
            values["store"] = str(self.home / "store")
        if not self.redis_url.get_secret_value():
            values["redis_url"] = SecretStr(f"redis://127.0.0.1:{self.redis_port}/0")
        if not self.kafka_bootstrap:
            values["kafka_bootstrap"] = f"127.0.0.1:{self.kafka_port}"
        if not self.log_redis_url.get_secret_value():
            values["log_redis_url"] = self.redis_url
        return self

    @property
    def embedded_redis(self) -> bool:
        """True where headgate starts Redis itself: no HEADGATE_REDIS_URL was given."""
        return self.redis_url.get_secret_value() == f"redis://127.0.0.1:{self.redis_port}/0"

    @property
    def embedded_kafka(self) -> bool:
        """True where `make up` starts Kafka as well: it keeps the log, and no HEADGATE_KAFKA_BOOTSTRAP was given."""
        return self.event_log == "kafka" and self.kafka_bootstrap == f"127.0.0.1:{self.kafka_port}"

    @property
    def may_break_glass(self) -> frozenset[str]:
        """The names of `break_glass_users`."""
        return frozenset(name.strip() for name in self.break_glass_users.split(",") if name.strip())


@functools.cache
def settings() -> Settings:
    """The process's settings; raises OperatorError naming the variable whose value cannot be.

    Tests that change the environment call `settings.cache_clear()`.
    """
    try:
        return Settings()
    except ValidationError as error:
        found = error.errors(include_url=False)
        parts = [f"HEADGATE_{'.'.join(map(str, bad['loc'])).upper()}={bad['input']}: {bad['msg']}" for bad in found]
        raise OperatorError("; ".join(parts) + ".", mend="docs/settings.md says what each variable takes.") from error
