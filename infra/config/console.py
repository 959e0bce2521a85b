"""console: how every command talks: progress and notes on stderr, one JSON result on stdout, one red line for an error."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from infra.contracts.errors import HeadgateError, NotEnoughRoom

notes = Console(stderr=True, highlight=False)
"""Where people read; machines read stdout."""

_LINE_EVERY_S = 5.0

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The disk is full, or the share of it that this user or this process may have."""


def run(app: typer.Typer) -> None:
    """Run a command line: a HeadgateError or a full disk becomes one line on stderr and exit code 1, Ctrl-C exit code 130."""
    try:
        app()
    except HeadgateError as error:
        _fail(error)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _fail(NotEnoughRoom(f"Nothing more can be written: {error}.", mend="Free disk space, then run it again."))
    except KeyboardInterrupt:
        notes.print("stopped")
        sys.exit(130)


def _fail(error: HeadgateError) -> NoReturn:
    notes.print("[bold red]error:[/] ", end="")
    notes.print(f"{type(error).__name__}: {error}", markup=False, soft_wrap=True)
    sys.exit(1)


def result(fields: Mapping[str, object]) -> None:
    """Print a command's result: one JSON object on one line, the last of stdout."""
    sys.stdout.write(orjson.dumps(fields, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """A note to whoever watches."""
    notes.print(text, markup=False, soft_wrap=True)


@contextmanager
def progress(title: str, *, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar in a terminal, a plain line every few seconds elsewhere. Yields `advance(n)`."""
    started = time.monotonic()
    if notes.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=notes) as bar:
            task = bar.add_task(title, total=total)
            yield lambda n: bar.advance(task, n)
        return
    done, last = 0, started
    of = f" of {total:,}" if total else ""

    def advance(n: int) -> None:
        nonlocal done, last
        done += n
        if time.monotonic() - last >= _LINE_EVERY_S:
            last = time.monotonic()
            say(f"{title}: {done:,}{of}, {last - started:.0f} s")

    yield advance
    say(f"{title}: {done:,}{of} done in {time.monotonic() - started:.1f} s")
