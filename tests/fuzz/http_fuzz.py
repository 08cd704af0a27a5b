"""Malformed requests against the gateway's protocol.

What must hold for each connection: every answer is the one to the request in its place, nothing
is carried out that `reference` does not read, what is wrong gets an error and the end, and the
request after it, if the connection lives, gets its own answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from tests.fuzz.cases import pieces, request_case
from tests.fuzz.connections import Wire, cold_answer, value_of
from tests.fuzz.reference import Ending, Read, Reading, read

if TYPE_CHECKING:
    from tests.fuzz.connections import Server

__all__ = ["Played", "Tally", "fuzz_requests", "play"]

DEADLINE_S = 20.0
CLIENTS = 100  # at once
COMMANDS = {"GET": b"GET", "HEAD": b"GET", "PUT": b"SET", "DELETE": b"UNLINK"}
KEYS = b"/v1/keys/"
REFUSALS = frozenset({400, 403, 404, 405, 408, 413, 414, 431, 501, 505})
GOOD = frozenset({200, 204})
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Answer(NamedTuple):
    """One answer as the client sees it."""

    status: int
    body: bytes
    closes: bool


@dataclass(slots=True)
class Tally:
    """What a run has seen."""

    requests: int = 0
    malformed: int = 0  # the reference refuses it, or it never ends
    refused: int = 0  # by the gateway
    carried_on: int = 0  # connections whose next request was answered, rightly


class Played(NamedTuple):
    """One connection's story."""

    reading: Reading
    answers: list[Answer]
    ended: bool


async def play(server: Server, data: list[bytes], canary: bytes = b"") -> Played:
    """Send it and wait for all that will come, however long."""
    reading = read(b"".join(data) + canary)
    wire = Wire(server)
    for piece in data:
        await wire.send(piece)
        if len(data) > 1:
            await asyncio.sleep(0)
    before = read(b"".join(data))
    if canary and before.ending is Ending.NOTHING and len(data) == 1:
        await _answered(wire, before)  # then the next request comes alone, which has its own way
    if canary:
        await wire.send(canary)
    answers = await _answered(wire, reading)
    await wire.leave()
    return Played(reading, answers, wire.ended)


async def _answered(wire: Wire, reading: Reading) -> list[Answer]:
    """Wait for all answers, and for the end if there must be one."""
    while True:
        wire.news.clear()
        answers = _answers(bytes(wire.received), reading.requests)
        if wire.ended or (len(answers) >= len(reading.requests) and reading.ending in _OPEN):
            return answers
        await wire.news.wait()


_OPEN = frozenset({Ending.NOTHING, Ending.PART})  # the connection lives on


def _answers(data: bytes, requests: list[Read]) -> list[Answer]:
    """All whole answers; raises AssertionError for what is none."""
    found: list[Answer] = []
    at = 0
    while at < len(data):
        if data.startswith(CONTINUE, at):
            at += len(CONTINUE)
            continue
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            break
        first, *lines = data[at:end].split(b"\r\n")
        assert first.startswith(b"HTTP/1.1 "), first
        status = int(first[9:12])
        headers = dict(line.lower().split(b": ", 1) for line in lines)
        number = len(found)
        head_only = status == 204 or (number < len(requests) and requests[number].method == "HEAD")
        length = 0 if head_only else int(headers[b"content-length"])
        at = end + 4 + length
        if at > len(data):
            break
        body = data[end + 4 : at]
        found.append(Answer(status, body, headers.get(b"connection") == b"close"))
    return found


def check(played: Played) -> None:
    """Every answer against its request; raises AssertionError."""
    requests, ending = played.reading.requests, played.reading.ending
    for number, answer in enumerate(played.answers):
        last = number == len(played.answers) - 1
        assert not answer.closes or last, "an answer after the last one"
        if number >= len(requests):
            assert ending is not Ending.NOTHING, "an answer to nothing"
            assert ending is not Ending.CLOSE, "an answer after the client closed"
            assert last, "two refusals"
            assert answer.status in REFUSALS, answer
            assert played.ended, "it lives on after what is no request"
        elif answer.status in GOOD:
            _check_good(requests[number], answer)
        else:
            assert answer.status in REFUSALS, answer
    if ending in {Ending.WRONG, Ending.CLOSE}:
        assert played.ended
    if not played.ended:
        assert len(played.answers) == len(requests)


def _check_good(request: Read, answer: Answer) -> None:
    path = request.target.partition(b"?")[0]
    if answer.body.startswith(b"cold "):
        assert answer.body == cold_answer(request.method, path, request.body)
    elif path.startswith(KEYS) and request.method == "GET":
        assert answer.body == value_of(unquote_to_bytes(path[len(KEYS) :]))


def commands(reading: Reading) -> set[tuple[bytes, bytes]]:
    """What a node may be asked for these requests."""
    found = set()
    for request in reading.requests:
        path, _, query = request.target.partition(b"?")
        if path.startswith(KEYS) and request.method in COMMANDS:
            found.add((COMMANDS[request.method], unquote_to_bytes(path[len(KEYS) :])))
        elif path == b"/read" and request.method == "GET":
            named = parse_qsl(query, keep_blank_values=True)
            found.update((b"GET", key) for name, key in named if name == b"key")
        elif path == b"/write" and request.method == "POST":
            with contextlib.suppress(ValueError, KeyError, AttributeError, TypeError):
                found.add((b"SET", json.loads(request.body)["key"].encode()))
    return found


async def fuzz_requests(server: Server, seed: int, first: int, tally: Tally) -> None:
    """`CLIENTS` connections at once; raises AssertionError with what repeats it."""
    allowed: set[tuple[bytes, bytes]] = set()
    server.node.asked.clear()

    async def one(number: int) -> None:
        case = request_case(seed, number)
        key = b"canary-%d" % number
        canary = b"GET " + KEYS + key + b" HTTP/1.1\r\nHost: x\r\n\r\n"
        try:
            played = await play(server, pieces(seed, number, case), canary)
            check(played)
        except (AssertionError, asyncio.CancelledError) as error:
            message = f"seed {seed}, case {number}: {error!r}\n{case!r}"
            raise AssertionError(message) from error
        allowed.update(commands(played.reading))
        answered = played.answers
        tally.requests += 1
        tally.malformed += read(case).ending in {Ending.WRONG, Ending.PART}
        tally.refused += bool(answered) and answered[-1].status in REFUSALS and played.ended
        tally.carried_on += bool(answered) and answered[-1].body == value_of(key)

    tasks = [asyncio.create_task(one(number)) for number in range(first, first + CLIENTS)]
    _, hanging = await asyncio.wait(tasks, timeout=DEADLINE_S)
    for task in hanging:
        task.cancel()
    await asyncio.gather(*tasks)
    smuggled = server.node.asked - allowed
    assert not smuggled, f"seed {seed}, cases from {first}: {smuggled} was carried out"
    await server.at_rest()
