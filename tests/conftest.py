"""What all tests share: a real Redis of their own."""

from __future__ import annotations

from tests.fixtures.redis_server import own_redis, redis_url

__all__ = ["own_redis", "redis_url"]
