"""opening: the event log that the settings name."""

from __future__ import annotations

from infra.config.settings import Settings
from infra.contracts.ids import ApplicationName
from infra.eventlog.kafka import KafkaLog, kafka_options
from infra.eventlog.protocol import EventLog
from infra.eventlog.redis_streams import RedisStreamLog, StreamLayout
from infra.snapshots import keys
from infra.snapshots.connection import serving_client


def stream_layout(application: ApplicationName, *, horizon: int) -> StreamLayout:
    """Where an application's log lies in Redis."""
    return StreamLayout(
        stream=lambda shard: keys.event_log(application, shard),
        tip=lambda shard: keys.event_log_tip(application, shard),
        terms=lambda shard: keys.event_log_terms(application, shard),
        seen=lambda shard, half: keys.event_log_seen(application, shard, half),
        horizon=horizon,
    )


def open_log(chosen: Settings, application: ApplicationName, *, timeout_s: float) -> EventLog:
    """With a client of its own. timeout_s: of each call to Redis; Kafka's own bounds hold there."""
    if chosen.event_log == "kafka":
        options = kafka_options(chosen.kafka_config.get_secret_value())
        return KafkaLog(application, bootstrap=chosen.kafka_bootstrap, extra=options)
    client = serving_client(chosen.log_redis_url.get_secret_value(), timeout_s=timeout_s)
    return RedisStreamLog(client, stream_layout(application, horizon=chosen.log_duplicate_horizon))
