"""python -m infra.local.world: invent a world and write it to disk."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from infra.config import console
from infra.local.world.generate import generate
from infra.local.world.size import WorldSize

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.callback()
def world() -> None:
    """A believable shop or video site whose true tastes are known."""


@app.command("generate")
def generate_world(
    *,
    out: Annotated[Path, typer.Option(help="an empty or new folder")],
    users: Annotated[int, typer.Option(help="how many users")] = 20_000,
    items: Annotated[int, typer.Option(help="how many items")] = 20_000,
    events: Annotated[int, typer.Option(help="how many events, exactly")] = 1_000_000,
    days: Annotated[int, typer.Option(help="over how many days")] = 56,
    start: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="the first day, UTC")] = datetime(2024, 4, 1),
    seed: Annotated[int, typer.Option(help="the same seed and sizes give the same bytes")] = 7,
) -> None:
    """Write events/, items.parquet, users.parquet, world.json, and oracle/ with the truth behind them."""
    size = WorldSize(users=users, items=items, events=events, seed=seed, days=days, start=start.replace(tzinfo=UTC))
    began = time.monotonic()
    with console.progress("generate", total=events) as advance:
        generate(size, out, advance=advance)
    seconds = round(time.monotonic() - began, 2)
    console.result(
        {"out": str(out), "users": users, "items": items, "events": events, "seed": seed, "seconds": seconds}
    )


if __name__ == "__main__":
    console.run(app)
