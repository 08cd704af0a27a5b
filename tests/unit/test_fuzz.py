"""What no client and no node may do to the gateway; `python -m tests.fuzz` does more of it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.cases import SMUGGLED, TRICKS
from tests.fuzz.connections import running_server, value_of
from tests.fuzz.http_fuzz import REFUSALS, Tally, fuzz_requests, play
from tests.fuzz.reference import Ending, read
from tests.fuzz.resp_fuzz import fuzz_gateway, fuzz_replies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fuzz.connections import Server

REQUESTS, REPLIES, THROUGH = 600, 500, 20
CANARY = b"GET /v1/keys/canary HTTP/1.1\r\nHost: x\r\n\r\n"
PIECE_BYTES = 16 * 1024  # as much as comes at once
SEED = random.randrange(1_000_000)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running_server() as server:
        yield server


@pytest.mark.parametrize("before", [b"", CANARY], ids=["first", "second"])
@pytest.mark.parametrize("trick", TRICKS)
async def test_a_known_trick_is_refused_and_ends_the_connection(
    server: Server, trick: str, before: bytes
) -> None:
    """In its turn, and with nothing carried out but what came before it."""
    data = before + TRICKS[trick]
    pieces = [data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES)]
    played = await play(server, pieces, CANARY)
    assert played.ended
    *earlier, refusal = played.answers
    assert refusal.status in REFUSALS, refusal
    assert refusal.closes
    assert [answer.body for answer in earlier] == [value_of(b"canary")] * bool(before)
    allowed = {(b"GET", b"canary")} if before else set()
    assert server.node.asked == allowed


def test_the_tricks_are_wrong_for_the_reference_too() -> None:
    """So that the long run knows them as malformed; a few are only too much for us."""
    taken = {name for name, data in TRICKS.items() if read(data).ending is Ending.NOTHING}
    too_much = {"many chunk extensions", "a long path", "many headers"}
    assert taken == too_much | {"a host with a space", "an unknown method"}
    assert read(SMUGGLED + CANARY).requests[1].target == b"/v1/keys/canary"


async def test_what_chance_makes_of_requests(server: Server) -> None:
    """Every answer is right, and memory held for requests is given back."""
    tally = Tally()
    while tally.requests < REQUESTS:
        await fuzz_requests(server, SEED, tally.requests, tally)
    assert tally.malformed > REQUESTS / 2
    assert tally.carried_on
    assert tally.refused


async def test_what_chance_makes_of_replies() -> None:
    """A command gets its own reply or none."""
    for number in range(REPLIES):
        await fuzz_replies(random.Random(SEED + number))
    await fuzz_gateway(random.Random(SEED), THROUGH)
