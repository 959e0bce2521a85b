"""describe: prints what one command line can do, as JSON; run in a process of its own, for it imports what it describes."""

from __future__ import annotations

import importlib
import json
import sys

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command


def describe(module: str) -> list[dict[str, object]]:
    """The commands of a module's `app`: name, help, and options with their defaults."""
    command = get_command(importlib.import_module(module).app)
    if isinstance(command, TyperGroup):
        named = [(name, one) for name, one in command.commands.items() if isinstance(one, TyperCommand)]
        return [_command(name, one) for name, one in named if not one.hidden]
    return [_command("", command)] if isinstance(command, TyperCommand) else []


def _command(name: str, command: TyperCommand) -> dict[str, object]:
    options = [
        {"flag": option.opts[-1], "default": _default(option), "required": option.required, "help": option.help or ""}
        for option in command.params
        if isinstance(option, TyperOption) and not option.hidden and option.name != "help"
    ]
    return {"name": name, "help": " ".join((command.help or "").split()), "options": options}


def _default(option: TyperOption) -> str:
    value = option.default
    return "" if value is None or value is False or callable(value) else str(value)


if __name__ == "__main__":
    typer.echo(json.dumps(describe(sys.argv[1])))
