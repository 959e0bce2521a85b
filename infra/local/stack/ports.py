"""ports: who listens where on this machine."""

from __future__ import annotations

import contextlib
import socket

import psutil

from infra.contracts.errors import PortTaken

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def require_free(port: int, *, what: str, setting: str) -> None:
    """Raise PortTaken, naming who listens, where the port is taken."""
    if not is_free(port):
        raise PortTaken(
            f"{what} is to listen on port {port}, where {listener(port)} listens.",
            mend=f"Stop that, or choose another port: {setting}=<port>",
        )


def listener(port: int) -> str:
    """Who listens on a port, in words. Another user's process shows only to root."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid is not None:
                process = psutil.Process(connection.pid)
                return f"process {connection.pid} ({' '.join(process.cmdline())[:80] or process.name()})"
    return "another user's process"
