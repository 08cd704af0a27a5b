"""The public PyPI client `upstash-redis`, unchanged, sync and asyncio, against both front ends."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from upstash_redis import Redis
from upstash_redis.asyncio import Redis as AsyncRedis
from upstash_redis.errors import UpstashError

from tests.cluster.gateway_fixtures import front, small_cluster

if TYPE_CHECKING:
    from tests.cluster.gateway_fixtures import GatewayProcess

__all__ = ["front", "small_cluster"]

OWN_WRITES = 200


def test_the_client_works_unchanged(front: GatewayProcess) -> None:
    """Values of all types, and errors."""
    with Redis(url=front.url, token="any", rest_retries=0) as redis:  # noqa: S106 - no secret
        key = uuid.uuid4().hex
        assert redis.set(key, "hé", ex=100)
        assert redis.get(key) == "hé"
        assert 0 < redis.ttl(key) <= 100
        assert not redis.set(key, "again", nx=True)
        assert redis.incrby(f"{key}:n", 41) == 41
        assert redis.hset(f"{key}:h", values={"one": 1, "two": "zwei"}) == 2
        assert redis.hgetall(f"{key}:h") == {"one": "1", "two": "zwei"}
        assert redis.rpush(f"{key}:l", "a", "b") == 2
        assert redis.lrange(f"{key}:l", 0, -1) == ["a", "b"]
        assert redis.sadd(f"{key}:s", "x", "y") == 2
        assert sorted(redis.smembers(f"{key}:s")) == ["x", "y"]
        assert redis.zadd(f"{key}:z", {"a": 1, "b": 2}) == 2
        assert redis.zrange(f"{key}:z", 0, -1, withscores=True) == [("a", 1), ("b", 2)]
        assert redis.geoadd(f"{key}:g", (13.361389, 38.115556, "Palermo")) == 1
        assert redis.pfadd(f"{key}:p", "a", "b") == 1
        assert redis.setbit(f"{key}:b", 7, 1) == 0
        assert redis.eval("return ARGV[1]", keys=[key], args=["back"]) == "back"
        assert redis.xadd(f"{key}:x", "*", {"f": "v"})
        with pytest.raises(UpstashError, match="WRONGTYPE"):
            redis.lpush(key, "x")
        with pytest.raises(UpstashError, match="CROSSSLOT"):
            redis.sunion("a", "b")


def test_the_client_sees_one_store_of_all_shards(front: GatewayProcess) -> None:
    """Split commands, SCAN, pipelines and transactions."""
    with Redis(url=front.url, token="any", rest_retries=0) as redis:  # noqa: S106 - no secret
        tag = uuid.uuid4().hex
        keys = {f"{tag}:{index}": str(index) for index in range(200)}
        assert redis.mset(keys) is True
        assert redis.mget(*keys) == list(keys.values())
        assert redis.exists(*keys) == 200
        found: list[str] = []
        cursor = 0
        while True:
            cursor, some = redis.scan(cursor, match=f"{tag}:*", count=30)
            found += some
            if cursor == 0:
                break
        assert sorted(found) == sorted(keys)
        pipeline = redis.pipeline()
        for key in keys:
            pipeline.incr(key)
        assert pipeline.exec() == [int(value) + 1 for value in keys.values()]
        assert redis.delete(*keys) == 200
        transaction = redis.multi()
        transaction.set(f"{{{tag}}}a", 1)
        transaction.incr(f"{{{tag}}}a")
        assert transaction.exec() == [True, 2]


async def test_the_asyncio_client_reads_its_own_writes(front: GatewayProcess) -> None:
    """It sends the token of the answer before, so no read goes to a replica that lags."""
    redis = AsyncRedis(url=front.url, token="any", rest_retries=0)  # noqa: S106 - no secret
    async with redis:
        key = uuid.uuid4().hex
        for index in range(OWN_WRITES):
            await redis.set(key, index)
            assert await redis.get(key) == str(index)
        assert await redis.delete(key) == 1
