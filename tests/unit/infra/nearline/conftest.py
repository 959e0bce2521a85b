"""What the tests of nearline share: an application of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.fixtures.nearline_shop import Shop


@pytest_asyncio.fixture
async def shop(redis_url: str) -> AsyncIterator[Shop]:
    shop = Shop(redis_url)
    await shop.client.flushall()
    yield shop
    await shop.close()
