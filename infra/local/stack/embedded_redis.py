"""embedded_redis: the serving Redis of this checkout: appends to a file every second, and refuses rather than drops when full."""

from __future__ import annotations

import signal
from pathlib import Path

import redis

from infra.config.settings import Settings
from infra.local import tools
from infra.local.stack.environment import fingerprint, stack_environment
from infra.local.stack.ports import HOST
from infra.local.stack.processes import Launch


class EmbeddedRedis:
    """redis-server on loopback, with its data in <home>/redis."""

    name = "redis"
    title = "Redis"
    port_setting = "HEADGATE_REDIS_PORT"
    ready_within_s = 60.0
    stop_signal = signal.SIGTERM
    grace_s = 30.0  # it writes what it has not written

    def __init__(self, chosen: Settings) -> None:
        self._chosen = chosen
        self.port = chosen.redis_port

    @property
    def url(self) -> str:
        """For redis-cli -u."""
        return f"redis://{HOST}:{self.port}/0"

    def launch(self, *, java_home: Path | None) -> Launch:
        """maxmemory with `noeviction`: a full Redis says so; any other policy would drop parts of a live snapshot in silence."""
        folder = self._chosen.home.resolve() / "redis"
        folder.mkdir(parents=True, exist_ok=True)
        options = {
            "bind": HOST,
            "port": str(self.port),
            "dir": str(folder),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory": f"{self._chosen.redis_maxmemory_mb}mb",
            "maxmemory-policy": "noeviction",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        command = [*tools.find_redis(), *words]
        own = fingerprint(Settings.model_construct(), command=command, extra={})  # no setting but these shapes it
        return Launch(command, stack_environment(self._chosen, java_home=None), folder, own)

    def problem(self) -> str:
        """A Redis that still reads its file says LOADING."""
        client = redis.Redis(host=HOST, port=self.port, socket_timeout=2.0, socket_connect_timeout=1.0)
        try:
            client.ping()
        except redis.exceptions.RedisError as error:
            return str(error) or type(error).__name__
        finally:
            client.close()
        return ""
