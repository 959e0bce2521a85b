"""jars: where Kafka's jars lie: in <home>/tools/kafka, one folder a profile of pom.xml; Maven fetches what is not there yet."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from infra.config import console
from infra.contracts.errors import MissingTool
from infra.local import tools

_POM = Path(__file__).with_name("pom.xml")
_STAMP = "pom.sha256"
_TIMEOUT_S = 900.0
_MEND = "Install Maven (apt-get install maven), let it reach Maven Central, or set HEADGATE_KAFKA_BOOTSTRAP to a Kafka that runs."


def broker_jars() -> list[Path]:
    """The class path of a broker. Raises MissingTool."""
    return _jars("broker")


def spark_kafka_jars() -> list[Path]:
    """What Spark needs for `format("kafka")`, for `spark.jars`; without what PySpark brings. Raises MissingTool."""
    return _jars("spark")


def _jars(profile: str) -> list[Path]:
    """The folder bears its name only when it is whole; one that another pom.xml made is made anew."""
    folder, wanted = tools.tools_folder() / "kafka" / profile, hashlib.sha256(_POM.read_bytes()).hexdigest()
    stamp = folder / _STAMP
    if not stamp.exists() or stamp.read_text() != wanted:
        _fetch(profile, folder, stamp=wanted)
    return sorted(folder.glob("*.jar"))


def _fetch(profile: str, folder: Path, *, stamp: str) -> None:
    """Maven keeps what it has downloaded in its own store, so that one that was interrupted goes on there."""
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingTool("Kafka's jars are fetched by Maven, and there is no mvn on PATH.", mend=_MEND)
    console.say(f"fetching Kafka's jars ({profile}) from Maven Central")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{profile}-", dir=folder.parent) as scratch:
        pom, found = Path(scratch, "pom.xml"), Path(scratch, "jars")
        shutil.copyfile(_POM, pom)
        done = subprocess.run(
            [
                *(maven, "--batch-mode", "--quiet", "--strict-checksums", "--file", str(pom)),
                *("--activate-profiles", profile, "dependency:copy-dependencies", f"-DoutputDirectory={found}"),
            ],
            env={**os.environ, "JAVA_HOME": str(tools.find_java())},
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
        if done.returncode:
            raise MissingTool(f"Kafka's jars could not be had: {_reason(done.stdout + done.stderr)}", mend=_MEND)
        (found / _STAMP).write_text(stamp)
        shutil.rmtree(folder, ignore_errors=True)
        found.rename(folder)


def _reason(said: str) -> str:
    """Maven's first line of error, for the rest repeats it or says how to ask for more; where it has none, its last line."""
    lines = said.strip().splitlines()
    errors = [line.removeprefix("[ERROR] ").split(" -> [Help")[0] for line in lines if line.startswith("[ERROR] ")]
    return f"{[*errors, *lines[-1:], 'Maven says nothing'][0].rstrip('.')}."
