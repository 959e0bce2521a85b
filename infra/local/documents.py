"""documents: docs/settings.md and docs/commands.md, written from the settings, the command lines and the Makefile themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import UnionType
from typing import Annotated, Literal, get_args, get_origin

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from infra.config import console
from infra.config.settings import CHECKOUT, Settings
from infra.contracts.errors import ContractViolation, OperatorError

app = typer.Typer(add_completion=False)

ROOMS = ("infra", "spark_jobs", "validation", "bentos")
_GENERATED = "<!-- Written by `make docs`; do not edit. -->"
_IS_COMMAND = "\n    console.run(app)\n"
"""How a module that is a command line ends."""


@app.command()
def main(
    *,
    check: Annotated[bool, typer.Option("--check", help="write nothing; fail where a page is not up to date")] = False,
) -> None:
    """Write the generated pages of docs/ anew."""
    update(render(CHECKOUT), checkout=CHECKOUT, check=check)


def update(pages: Mapping[Path, str], *, checkout: Path, check: bool) -> None:
    """Write the pages that differ; with `check` write nothing, and raise OperatorError where one does."""
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    if check and stale:
        names = ", ".join(str(path.relative_to(checkout)) for path in stale)
        raise OperatorError(f"Not what the code says now: {names}.", mend="Run: make docs")
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pages[path])
        console.say(f"wrote {path.relative_to(checkout)}")
    console.say(f"{len(pages)} generated pages are up to date")


def render(checkout: Path) -> dict[Path, str]:
    """Every generated page, as it should be."""
    docs = checkout / "docs"
    return {docs / "settings.md": settings_page(), docs / "commands.md": commands_page(checkout)}


def settings_page() -> str:
    """One row a HEADGATE_ variable."""
    rows = [
        (f"`HEADGATE_{name.upper()}`", _kind(field), _default(field), _cell(field.description or ""))
        for name, field in Settings.model_fields.items()
    ]
    text = (
        "Environment variables, read once by [infra/config/settings.py](../infra/config/settings.py). "
        "`make up` starts anew what runs with other settings."
    )
    table = _table(("variable", "kind", "default", "what"), rows)
    return "\n".join(["# Settings", "", _GENERATED, "", text, "", table, ""])


def commands_page(checkout: Path) -> str:
    """The targets of `make`, then every `python -m` command behind them."""
    lines = ["# Commands", "", _GENERATED, "", "## make", "", "```", _targets(checkout), "```", ""]
    modules = command_modules(checkout)
    with ThreadPoolExecutor(2) as pool:
        for module, commands in zip(modules, pool.map(_described, modules), strict=True):
            name = module.removesuffix(".__main__")
            lines += [f"## python -m {name}", ""]
            for command in commands:
                lines += _command_lines(name, command)
    return "\n".join(lines)


def command_modules(checkout: Path) -> list[str]:
    """The modules that end as a command line does, in order of their names."""
    files = (file for room in ROOMS for file in (checkout / room).rglob("*.py"))
    names = (file.relative_to(checkout).with_suffix("") for file in files if _IS_COMMAND in file.read_text())
    return sorted(".".join(path.parts) for path in names)


def _described(module: str) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "infra.local.describe", module]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ContractViolation(f"python -m {module} cannot be described: {done.stderr.strip().splitlines()[-1:]}")
    found: list[dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _command_lines(module: str, command: dict[str, object]) -> Iterable[str]:
    if command["name"]:
        yield f"### {module} {command['name']}"
        yield ""
    yield str(command["help"])
    yield ""
    options = command["options"]
    if isinstance(options, list) and options:
        rows = [
            (f"`{one['flag']}`", "required" if one["required"] else _code(one["default"]), _cell(one["help"]))
            for one in options
        ]
        yield _table(("option", "default", "what"), rows)
        yield ""


def _targets(checkout: Path) -> str:
    done = subprocess.run(["make", "help"], cwd=checkout, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _kind(field: FieldInfo) -> str:
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is UnionType:
        return " or ".join(kind.__name__ for kind in get_args(annotation) if kind is not type(None))
    names = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "`true` or `false`",
        Path: "path",
        SecretStr: "secret text",
    }
    return names.get(annotation, "text") if isinstance(annotation, type) else "text"


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Path) and value.is_relative_to(CHECKOUT):
        value = value.relative_to(CHECKOUT)
    return _code(str(value).lower() if isinstance(value, bool) else value)


def _code(value: object) -> str:
    return f"`{value}`" if value not in (None, "") else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    console.run(app)
