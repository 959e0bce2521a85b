"""The local Kafka: jars that appear whole or not at all, a broker that is started once, says what is wrong, and leaves nothing."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from infra.config.settings import settings
from infra.contracts.errors import DependencyUnavailable, MissingTool, PortTaken
from infra.local import tools
from infra.local.kafka.jars import broker_jars, spark_kafka_jars
from infra.local.stack.stack import Stack
from tests.fixtures.kafka import KafkaProcess

# -- jars


@pytest.fixture
def maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for a `mvn` of the test's own, before all else on PATH; the tools' folder is empty."""
    folder, java_home = tmp_path / "bin", tools.find_java()
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("JAVA_HOME", str(java_home))
    monkeypatch.setenv("HEADGATE_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield folder / "mvn"
    settings.cache_clear()


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


_COPY = """for word in "$@"; do case "$word" in -DoutputDirectory=*) into="${word#-DoutputDirectory=}" ;; esac; done
mkdir -p "$into"
echo "$@" >> "$(dirname "$0")/calls\""""


def test_jars_are_fetched_once_and_by_profile(maven: Path, tmp_path: Path) -> None:
    program(maven, f'{_COPY}; touch "$into/b.jar" "$into/a.jar"')
    folder = tmp_path / "home/tools/kafka/broker"
    assert broker_jars() == broker_jars() == [folder / "a.jar", folder / "b.jar"]
    (call,) = (maven.parent / "calls").read_text().splitlines()
    assert "--activate-profiles broker" in call and "--strict-checksums" in call


def test_jars_of_another_pom_are_fetched_anew(maven: Path, tmp_path: Path) -> None:
    program(maven, f'{_COPY}; touch "$into/new.jar"')
    folder = tmp_path / "home/tools/kafka/spark"
    folder.mkdir(parents=True)
    (folder / "old.jar").touch()
    (folder / "pom.sha256").write_text("of another time")
    assert spark_kafka_jars() == [folder / "new.jar"]


def test_a_maven_that_fails_leaves_nothing_and_its_reason_is_told(maven: Path, tmp_path: Path) -> None:
    script = f"""{_COPY}; touch "$into/half.jar"
        echo '[ERROR] Failed to execute: Could not find artifact a:b -> [Help 1]'; echo '[ERROR] Re-run Maven'; exit 1"""
    program(maven, script)
    with pytest.raises(
        MissingTool, match=r"could not be had: Failed to execute: Could not find artifact a:b\. Install Maven"
    ):
        broker_jars()
    assert list((tmp_path / "home/tools/kafka").iterdir()) == []
    program(maven, f'{_COPY}; touch "$into/whole.jar"')
    assert [jar.name for jar in broker_jars()] == ["whole.jar"]


def test_without_maven_the_mend_is_told(maven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(maven.parent))
    with pytest.raises(MissingTool, match="there is no mvn on PATH.*apt-get install maven.*HEADGATE_KAFKA_BOOTSTRAP"):
        broker_jars()


def test_what_spark_needs_of_kafka_is_what_pyspark_does_not_bring() -> None:
    try:
        found = [jar.name for jar in spark_kafka_jars()]
    except MissingTool as error:
        if settings().require_all:
            raise
        pytest.skip(str(error))
    stems = [name.rsplit("-", 1)[0] for name in found]
    assert stems == [
        "commons-pool2",
        "kafka-clients",
        "spark-sql-kafka-0-10_2.13",
        "spark-token-provider-kafka-0-10_2.13",
    ]


# -- the broker


def test_a_broker_is_started_once_keeps_its_data_and_leaves_no_process(own_kafka: KafkaProcess) -> None:
    broker = own_kafka.broker
    first = broker.house.running("kafka")
    assert first is not None and broker.kafka.problem() == ""
    broker.up()
    assert broker.house.running("kafka") == first

    admin = AdminClient({"bootstrap.servers": own_kafka.bootstrap})
    admin.create_topics([NewTopic("kept", num_partitions=2)])["kept"].result(30)
    assert broker.down() == 1
    assert not psutil.pid_exists(first.pid) or psutil.Process(first.pid).status() == psutil.STATUS_ZOMBIE
    assert broker.kafka.problem() != "" and broker.house.names() == []
    assert broker.down() == 0

    broker.up()
    assert len(admin.list_topics(timeout=30).topics["kept"].partitions) == 2
    chosen = settings().model_copy(update={"home": own_kafka.home})
    assert Stack(chosen).down() == {"kafka": 1}  # as `make down` does


def test_a_broker_listens_on_loopback_alone(own_kafka: KafkaProcess) -> None:
    record = own_kafka.broker.house.running("kafka")
    assert record is not None
    listens = [
        connection.laddr
        for connection in psutil.Process(record.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    port = own_kafka.broker.kafka.port
    assert {address.port for address in listens} == {port, port + 1}
    assert {address.ip.removeprefix("::ffff:") for address in listens} == {"127.0.0.1"}


def test_a_taken_port_is_named_and_nothing_is_started(own_kafka: KafkaProcess) -> None:
    broker = own_kafka.broker
    broker.down()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", broker.kafka.port + 1))
        taken.listen()
        with pytest.raises(PortTaken, match=f"port {broker.kafka.port + 1}.*HEADGATE_KAFKA_PORT=<port>"):
            broker.up()
    assert broker.house.names() == []


def test_a_broker_that_does_not_start_is_stopped_and_its_log_told(own_kafka: KafkaProcess) -> None:
    broker = own_kafka.broker
    broker.down()
    meta = broker.kafka.home / "data" / "meta.properties"
    shutil.copyfile(meta, meta.with_suffix(".kept"))
    meta.write_text("version=1\n")  # it no longer knows who it is
    with pytest.raises(DependencyUnavailable, match=r"Kafka ended while it started\. .*kafka\.log ends with:"):
        broker.up()
    assert broker.house.names() == []
    meta.with_suffix(".kept").replace(meta)
    broker.up()
