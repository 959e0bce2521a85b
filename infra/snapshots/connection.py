"""connection: Redis clients as headgate wants them: bounded waits, no silent endless retries, an error that tells the mend."""

from __future__ import annotations

from typing import cast
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.cluster import RedisCluster
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from infra.contracts.errors import DependencyUnavailable, OperatorError

_CONNECT_S = 5.0
_CLUSTER = "redis+cluster://"


def batch_client(url: str, *, timeout_s: float = 30.0) -> redis.Redis:
    """A blocking client for jobs and commands. Raises OperatorError where the URL is none; connects at the first use."""
    retry = Retry(ExponentialBackoff(cap=1.0, base=0.1), 2)
    try:
        return redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=_CONNECT_S, retry=retry)
    except ValueError as error:
        raise OperatorError(
            "HEADGATE_REDIS_URL is not the URL of a Redis.", mend="Give one such as redis://127.0.0.1:6379/0"
        ) from error


def serving_client(url: str, *, timeout_s: float, connections: int = 64) -> redis.asyncio.Redis:
    """An asyncio client for the request path: `timeout_s` bounds each wait, and a failed call fails at once.

    `redis+cluster://host:port`: of a Redis Cluster, whose client has the same methods; one moved slot is followed.
    """
    if url.startswith(_CLUSTER):
        cluster = RedisCluster.from_url(
            "redis://" + url.removeprefix(_CLUSTER), socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        )
        return cast(redis.asyncio.Redis, cluster)
    return redis.asyncio.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        max_connections=connections,
        retry=Retry(NoBackoff(), 0),
    )


def _probe(url: str) -> redis.Redis:
    """A blocking client that finds out soon whether Redis answers: one try, and no long wait."""
    return redis.Redis.from_url(
        url, socket_timeout=_CONNECT_S, socket_connect_timeout=_CONNECT_S, retry=Retry(NoBackoff(), 0)
    )


def address(url: str) -> str:
    """Host and port of a Redis URL, without the password, for messages."""
    parts = urlsplit(url)
    return f"{parts.hostname or '?'}:{parts.port or 6379}"


def require(client: redis.Redis, *, url: str) -> None:
    """Raise DependencyUnavailable where Redis does not answer, OperatorError where it is too old or may drop keys."""
    try:
        with _probe(url) as probe:
            probe.ping()
        server = client.info("server")
        policy = client.config_get("maxmemory-policy").get("maxmemory-policy", "noeviction")
    except redis.exceptions.NoPermissionError:
        return
    except redis.exceptions.RedisError as error:
        raise DependencyUnavailable(
            f"Redis at {address(url)} does not answer ({error}).", mend="Run: make up, or set HEADGATE_REDIS_URL."
        ) from error
    version = str(server["redis_version"])
    if int(version.split(".")[0]) < 7:
        raise OperatorError(f"Redis at {address(url)} is version {version}; wanted 7 or newer.")
    if policy != "noeviction":
        raise OperatorError(
            f"Redis at {address(url)} has maxmemory-policy {policy}, which drops parts of a live snapshot in silence; "
            "wanted noeviction.",
            mend=f"Run: redis-cli -u {address(url)} CONFIG SET maxmemory-policy noeviction",
        )
