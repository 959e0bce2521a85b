"""python -m infra.local: the stack on this machine, a snapshot through Airflow, and the demo."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from infra.catalog.applications.ranking import RANKING
from infra.config import console
from infra.config.settings import CHECKOUT, settings
from infra.contracts.errors import OperatorError
from infra.local.airflow_client import AirflowClient
from infra.local.demo import Demo
from infra.local.kafka.jars import spark_kafka_jars
from infra.local.kafka_broker import Broker
from infra.local.refresh import refresh_snapshot
from infra.local.source import SampleWorld, own_source
from infra.local.stack.stack import PartStatus, Stack
from infra.local.visits import Traffic, open_visitors, send_visits

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

Data = Annotated[str, typer.Option("--data", help="your events: a path or an fsspec URL; default: the sample world")]
Format = Annotated[str, typer.Option("--format", help="auto, movielens, csv, jsonl, parquet or world")]
Columns = Annotated[str, typer.Option("--map", help="your columns, such as user=customer,item=sku,time=ts")]
JsonOnly = Annotated[bool, typer.Option("--json", help="no table, only the JSON object on stdout")]


@app.command()
def up() -> None:
    """Start Redis, Airflow and the service, or what of them does not run. Returns when all of them answer."""
    _let_sigterm_clean_up()
    began, stack = time.monotonic(), Stack(settings())
    seconds = stack.up()
    urls = {part.name: part.url for part in stack.parts if part.url}
    console.say("running. make status shows it, make login the Airflow login, make down stops it")
    console.result({"urls": urls, "ready_after_s": seconds, "seconds": round(time.monotonic() - began, 1)})


@app.command()
def down() -> None:
    """Stop everything that was started from this checkout, and what that started. Leaves no process."""
    began = time.monotonic()
    ended = Stack(settings()).down()
    console.say("nothing runs" if not ended else f"stopped {sum(ended.values())} processes; nothing runs")
    console.result({"ended": ended, "seconds": round(time.monotonic() - began, 1)})


@app.command()
def status(*, json: JsonOnly = False) -> None:
    """What runs: state, processes, memory, address. Then the snapshots, where Redis answers."""
    stack = Stack(settings())
    rows = stack.status()
    if not json:
        console.notes.print(_status_table(rows))
        for row in rows:
            if row.note:
                console.say(f"{row.name}: {row.note}")
    if json or not sys.stdout.isatty():
        console.result({"parts": [asdict(row) for row in rows], "running": stack.running()})
    elif all(row.state in {"running", "external"} for row in rows if row.name == "redis"):
        subprocess.run([sys.executable, "-m", "infra.snapshots", "status"], cwd=CHECKOUT, check=False)


@app.command()
def login() -> None:
    """Show Airflow's address, user and password."""
    with AirflowClient.local() as client:
        user, password = client.credentials()
        console.say(f"{client.url}   user: {user}   password: {password}")
        console.result({"url": client.url, "user": user, "password": password})


@app.command()
def snapshot(*, data: Data = "", source_format: Format = "", mapping: Columns = "") -> None:
    """Build a snapshot through Airflow, have it judged, put it live. Without --data: of the setting's source, or the sample."""
    chosen = settings()
    data = data or chosen.ranking_source
    own = own_source(data, source_format=source_format, mapping=mapping) if data else None
    with AirflowClient.local() as client, SampleWorld(chosen) if own is None else nullcontext() as world:
        source = own or (world.wait() if world is not None else None)
        done = refresh_snapshot(client, RANKING.name, conf=source.form() if source else {})
    console.say(f"{done.version} is live after {done.seconds:.0f} s")
    _result_for_machines(asdict(done))


@app.command()
def demo(*, data: Data = "", source_format: Format = "", mapping: Columns = "") -> None:
    """Everything once: the stack, data, a snapshot, recommendations, a rollback. Leaves the stack running."""
    _let_sigterm_clean_up()
    own = own_source(data, source_format=source_format, mapping=mapping) if data else None
    _result_for_machines(Demo(settings()).run(own))


@app.command()
def visit(
    *,
    seconds: Annotated[float, typer.Option(help="how long they come")] = 60.0,
    per_second: Annotated[float, typer.Option(help="how many come a second")] = 20.0,
    users: Annotated[int, typer.Option(help="how many of the world's users, drawn at random; 0: all")] = 0,
    items: Annotated[int, typer.Option(help="length of the lists they ask for")] = 20,
    world: Annotated[str, typer.Option(help="folder of the generated world; default: the sample world")] = "",
    url: Annotated[str, typer.Option(help="the ranking service; default: the one that make up starts")] = "",
) -> None:
    """Let simulated users come to the running service: they see their lists, click and buy by the world's truth."""
    chosen, rng, traffic = settings(), np.random.default_rng(), Traffic(seconds, per_second, users, items)
    visitors = open_visitors(Path(world or SampleWorld(chosen).source.location), rng)
    with console.progress("visits", total=traffic.visits) as advance:
        tally = send_visits(url or Stack(chosen).service.url, visitors, traffic, rng, advance=advance)
    console.result(tally.fields())


@app.command()
def kafka_up() -> None:
    """Start a Kafka broker on loopback, where none of this checkout runs. Returns when it answers; make down stops it too.

    Spark's connector is fetched as well, for `python -m spark_jobs.nearline stream`.
    """
    _let_sigterm_clean_up()
    broker = Broker(settings())
    spark_kafka_jars()
    console.result({"bootstrap": broker.kafka.url, "seconds": broker.up()})


@app.command()
def kafka_down() -> None:
    """Stop the Kafka broker of this checkout; its data stays in <home>/kafka."""
    ended = Broker(settings()).down()
    console.say("Kafka is stopped" if ended else "no Kafka of this checkout runs")
    console.result({"ended": ended})


@app.command()
def clean() -> None:
    """Delete what the stack and the builds left in <home>; the unpacked tools stay. Refused while something runs."""
    chosen = settings()
    stack, home = Stack(chosen), chosen.home.resolve()
    if stack.running():
        raise OperatorError(f"{', '.join(stack.running())} still runs.", mend="Run: make down")
    gone = [path for path in sorted(home.glob("*")) if path.name != "tools"] if home.is_dir() else []
    for path in gone:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        console.say(f"deleted {path}")
    console.result({"deleted": [str(path) for path in gone]})


def _result_for_machines(fields: Mapping[str, object]) -> None:
    """Someone at a terminal has read it all and is spared the JSON."""
    if not sys.stdout.isatty():
        console.result(fields)


def _status_table(rows: list[PartStatus]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("part", "state", "pid", "procs", "MiB", "up", "address"):
        table.add_column(column, justify="right" if column in {"pid", "procs", "MiB", "up"} else "left", no_wrap=True)
    for row in rows:
        uptime = f"{row.uptime_s / 60:.0f} min" if row.uptime_s >= 120 else f"{row.uptime_s:.0f} s"
        table.add_row(
            row.name,
            row.state,
            str(row.pid or "-"),
            str(row.processes or "-"),
            f"{row.memory_mb:,}" if row.memory_mb else "-",
            uptime if row.pid is not None else "-",
            row.url,
        )
    return table


def _let_sigterm_clean_up() -> None:
    """`kill` and a closed CI job are like Ctrl-C: what was half started is stopped again."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)  # a background shell may have set it to be ignored
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, stop)


if __name__ == "__main__":
    console.run(app)
