"""environment: what every process of the stack is told, so that all of them see one home, one store and one Java."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import SecretStr

from infra.config.settings import CHECKOUT, Settings

VENV_BIN = Path(sys.executable).parent


def stack_environment(chosen: Settings, *, java_home: Path | None) -> dict[str, str]:
    """This process's environment, with relative paths made absolute and headgate's own programs found first."""
    path = os.pathsep.join([str(VENV_BIN), os.environ.get("PATH", os.defpath)])
    store = chosen.store if "://" in chosen.store else str(Path(chosen.store).resolve())
    environment = {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(CHECKOUT),  # a project that is not installed, or installed from another checkout
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        "HEADGATE_HOME": str(chosen.home.resolve()),
        "HEADGATE_STORE": store,
        "GX_ANALYTICS_ENABLED": "False",
        "BENTOML_DO_NOT_TRACK": "True",
        "DO_NOT_TRACK": "1",
    }
    if java_home is not None:
        environment["JAVA_HOME"] = str(java_home)
    # What `make` and a debugger leave behind is not for servers.
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHONHOME", "VIRTUAL_ENV"):
        environment.pop(name, None)
    return environment


def fingerprint(chosen: Settings, *, command: Sequence[str], extra: Mapping[str, str]) -> str:
    """Of all that shapes a component: its command, its variables and every setting. Not reversible, so passwords may enter."""
    values = chosen.model_dump(mode="json")
    values |= {name: said.get_secret_value() for name, said in chosen if isinstance(said, SecretStr)}
    text = json.dumps([list(command), dict(extra), values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
