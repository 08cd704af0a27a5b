"""A scripted shard, and a gateway on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.api_fakes import FakeShard, fake_shard, gateway_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shardcluster_api.gateway import Gateway


@pytest.fixture
async def shard() -> AsyncIterator[FakeShard]:
    """One master with a replica."""
    async with fake_shard() as one:
        yield one


@pytest.fixture
async def gateway(shard: FakeShard) -> AsyncIterator[Gateway]:
    """A gateway on it."""
    async with gateway_on(shard.master.address) as one:
        yield one
