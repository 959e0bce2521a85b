"""kafka: a broker of this machine's own: one node, its own controller (KRaft), on loopback, with its data in <home>/kafka."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import uuid
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.config.settings import Settings
from infra.contracts.errors import OperatorError
from infra.local import tools
from infra.local.kafka.jars import broker_jars
from infra.local.stack.environment import fingerprint, stack_environment
from infra.local.stack.ports import HOST, require_free
from infra.local.stack.processes import Launch

_MEMORY = "-Xmx512m"
_LOOK_S = 2.0


class LocalKafka:
    """A broker on `kafka_port`, whose controller listens on the port above."""

    name = "kafka"
    title = "Kafka"
    port_setting = "HEADGATE_KAFKA_PORT"
    ready_within_s = 60.0
    stop_signal = signal.SIGTERM
    grace_s = 30.0  # it closes its files; one that is killed looks through them at its next start

    def __init__(self, chosen: Settings) -> None:
        self._chosen = chosen
        self.port = chosen.kafka_port
        self.home = chosen.home.resolve() / "kafka"

    @property
    def url(self) -> str:
        """For bootstrap.servers."""
        return f"{HOST}:{self.port}"

    def launch(self, *, java_home: Path | None) -> Launch:
        """Fetches the jars and formats the data folder where that has not been done."""
        java = (java_home or tools.find_java()) / "bin" / "java"
        self.home.mkdir(parents=True, exist_ok=True)
        properties = self.home / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in self._properties().items()))
        class_path = os.pathsep.join(str(jar) for jar in broker_jars())
        run = [str(java), _MEMORY, "-XX:+UseSerialGC", "-Dlog4j2.level=WARN", "-cp", class_path]
        if not (self.home / "data" / "meta.properties").exists():
            _format([*run, "kafka.tools.StorageTool", "format"], properties)
        command = [*run, "kafka.Kafka", str(properties)]
        own = fingerprint(Settings.model_construct(), command=command, extra=self._properties())
        return Launch(command, stack_environment(self._chosen, java_home=None), self.home, own)

    def require_ports(self) -> None:
        """Raises PortTaken."""
        for port in (self.port, self.port + 1):
            require_free(port, what=self.title, setting=self.port_setting)

    def problem(self) -> str:
        """It serves once it tells of itself as a broker."""
        try:
            socket.create_connection((HOST, self.port), timeout=_LOOK_S).close()
            seen = AdminClient({"bootstrap.servers": self.url, "log_level": 0}).list_topics(timeout=_LOOK_S)
        except (OSError, KafkaException) as error:
            return str(error)
        return "" if seen.brokers else "it knows of no broker yet"

    def _properties(self) -> dict[str, str]:
        """One of everything, and nothing is deleted by age: the log is trimmed by headgate."""
        controller = f"{HOST}:{self.port + 1}"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.url},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.url}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "broker.session.timeout.ms": "5000",  # so long one that was killed is waited for when it starts again
            "broker.heartbeat.interval.ms": "1000",
            "log.dirs": str(self.home / "data"),
            "log.retention.ms": "-1",
            "log.cleaner.dedupe.buffer.size": "16777216",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
        }


def _format(command: list[str], properties: Path) -> None:
    """Give the data folder its identity; a broker does not start without."""
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    done = subprocess.run(
        [*command, "--cluster-id", cluster, "--config", str(properties)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise OperatorError(
            f"Kafka's data folder could not be formatted: {said[0] if said else done.returncode}.",
            mend=f"Look at {properties}, and whether the disk has room.",
        )
