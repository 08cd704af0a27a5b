"""Requests that are wrong on purpose: a table of known tricks, and what chance makes of good ones.

Law: the same seed and number give the same bytes.
"""

from __future__ import annotations

import random

__all__ = ["SMUGGLED", "TRICKS", "pieces", "request_case"]

SMUGGLED = b"PUT /v1/keys/smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\ns"
_PUT = b"PUT /v1/keys/k HTTP/1.1\r\nHost: x\r\n"
_GET = b"GET /v1/keys/k HTTP/1.1\r\n"
_CHUNKED = _PUT + b"Transfer-Encoding: chunked\r\n\r\n"
_ONE = b"Content-Length: 1\r\n\r\na"

# Each must be answered with an error, and the connection must end.
TRICKS: dict[str, bytes] = {
    "length and chunked": _PUT
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": _PUT
    + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "the same length twice": _PUT + b"Content-Length: 1\r\n" + _ONE,
    "two lengths": _PUT + b"Content-Length: 0\r\n" + _ONE,
    "a list of lengths": _PUT + b"Content-Length: 1, 1\r\n\r\na",
    "a length with a sign": _PUT + b"Content-Length: +1\r\n\r\na",
    "a negative length": _PUT + b"Content-Length: -1\r\n\r\na",
    "a length in hex": _PUT + b"Content-Length: 0x1\r\n\r\na",
    "a length with an underscore": _PUT + b"Content-Length: 1_0\r\n\r\n" + b"a" * 10,
    "an empty length": _PUT + b"Content-Length:\r\n\r\n",
    "a length beyond 64 bits": _PUT + b"Content-Length: 18446744073709551617\r\n\r\na",
    "a folded length": _PUT + b"Content-Length:\r\n 1\r\n\r\na",
    "an unknown coding": _PUT + b"Transfer-Encoding: x\r\n\r\n" + SMUGGLED,
    "the coding identity": _PUT + b"Transfer-Encoding: identity\r\n" + _ONE,
    "chunked twice": _PUT + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked in two headers": _PUT + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "gzip and chunked": _PUT + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked, then identity": _PUT + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "xchunked": _PUT + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked with a vertical tab": _PUT + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in quotes": _PUT + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "a coding with a space before the colon": _PUT
    + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded coding": _PUT + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": _CHUNKED.replace(b"/1.1", b"/1.0") + b"0\r\n\r\n",
    "a chunk's size with 0x": _CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
    "a negative chunk": _CHUNKED + b"-1\r\na\r\n0\r\n\r\n",
    "a chunk's size with a sign": _CHUNKED + b"+1\r\na\r\n0\r\n\r\n",
    "a space before a chunk's size": _CHUNKED + b" 1\r\na\r\n0\r\n\r\n",
    "a space after a chunk's size": _CHUNKED + b"1 \r\na\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": _CHUNKED + b"10000000000000001\r\na\r\n0\r\n\r\n",
    "a chunk's size ends with a line feed": _CHUNKED + b"1\na\r\n0\r\n\r\n",
    "a chunk ends with a line feed": _CHUNKED + b"1\r\na\n0\r\n\r\n",
    "a chunk longer than its size": _CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
    "a chunk's extension with a line feed": _CHUNKED + b"1;a\nb\r\na\r\n0\r\n\r\n",
    "an endless chunk extension": _CHUNKED + b"1;" + b"a" * 400_000,
    "many chunk extensions": _CHUNKED + (b"1;" + b"a" * 2000 + b"\r\na\r\n") * 400 + b"0\r\n\r\n",
    "a trailer": _CHUNKED + b"1\r\na\r\n0\r\nX: y\r\n\r\n",
    "a trailer with a length": _CHUNKED + b"1\r\na\r\n0\r\nContent-Length: 60\r\n\r\n" + SMUGGLED,
    "a trailer with a token": _CHUNKED + b"0\r\nAuthorization: Bearer x\r\n\r\n",
    "a folded header": _PUT + b"X: a\r\n b\r\n" + _ONE,
    "line feeds alone": b"PUT /v1/keys/k HTTP/1.1\nHost: x\nContent-Length: 1\n\na",
    "one line feed alone": _PUT + b"X: y\n" + _ONE,
    "a line feed in a header": _PUT + b"X: y\nContent-Length: 40\r\n" + _ONE,
    "a carriage return alone": _PUT + b"X: y\rContent-Length: 1\r\n\r\na",
    "two carriage returns": _PUT + b"X: y\r\r\n" + _ONE,
    "NUL in a header": _PUT + b"X: a\0b\r\n" + _ONE,
    "NUL in a header's name": _PUT + b"X\0: a\r\n" + _ONE,
    "a control character in a header": _PUT + b"X: a\x01b\r\n" + _ONE,
    "8 bits in a header's name": _PUT + b"X\xe9: a\r\n" + _ONE,
    "a space before the colon": _PUT + b"X : a\r\n" + _ONE,
    "a space in a header's name": _PUT + b"X Y: a\r\n" + _ONE,
    "a header without a name": _PUT + b": a\r\n" + _ONE,
    "a header without a colon": _PUT + b"XY\r\n" + _ONE,
    "a space before the first header": b"PUT /v1/keys/k HTTP/1.1\r\n Host: x\r\n" + _ONE,
    "absolute form": b"GET http://evil/v1/keys/k HTTP/1.1\r\nHost: x\r\n\r\n",
    "authority form": b"GET evil:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "asterisk form": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT evil:80 HTTP/1.1\r\nHost: x\r\n\r\n" + SMUGGLED,
    "HTTP/0.9": b"GET /v1/keys/k\r\n\r\n",
    "HTTP/1.2": b"GET /v1/keys/k HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2.0": b"GET /v1/keys/k HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/01.1": b"GET /v1/keys/k HTTP/01.1\r\nHost: x\r\n\r\n",
    "http in lower case": b"GET /v1/keys/k http/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2 with prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "h2c": _GET
    + b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    + b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    "h2c with a body": _PUT
    + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 60\r\n\r\n"
    + SMUGGLED,
    "an upgrade of what is not hot": b"GET /status HTTP/1.1\r\nHost: x\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "another protocol": b"GET /v1/keys/k ICE/1.0\r\nHost: x\r\n\r\n",
    "no host": _GET + b"\r\n",
    "two hosts": _GET + b"Host: x\r\nHost: y\r\n\r\n",
    "a host with a space": _GET + b"Host: a b\r\n\r\n",
    "two tokens": _GET + b"Host: x\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    "two origins": _PUT + b"Origin: http://x\r\nOrigin: http://y\r\n" + _ONE,
    "tabs in the first line": b"GET\t/v1/keys/k\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "a space in the path": b"GET /v1/keys/a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a space before the method": b" GET /v1/keys/k HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method in lower case": b"get /v1/keys/k HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown method": b"FOO /v1/keys/k HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in the path": b"GET /v1/keys/a\0b HTTP/1.1\r\nHost: x\r\n\r\n",
    "8 bits in the path": b"GET /v1/keys/\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a fragment": b"GET /v1/keys/k#x HTTP/1.1\r\nHost: x\r\n\r\n",
    "a long path": b"GET /v1/keys/" + b"k" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "many headers": _GET + b"Host: x\r\n" + b"X: y\r\n" * 101 + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 32,
    "RESP": b"*1\r\n$4\r\nPING\r\n",
    "garbage": b"\x00\xff\x00\xff\r\n\r\n",
}

_GOOD = [
    _GET + b"Host: x\r\n\r\n",
    b"GET /v1/keys/a%20b?consistency=strong HTTP/1.1\r\nHost: shop.example:80\r\nA: */*\r\n\r\n",
    b"HEAD /v1/keys/head HTTP/1.1\r\nHost: x\r\n\r\n",
    b"DELETE /v1/keys/gone HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
    _PUT + b"Content-Length: 11\r\n\r\nhello world",
    _PUT + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    _CHUNKED + b"5\r\nhello\r\n1;a=b\r\n \r\n0\r\n\r\n",
    _CHUNKED + b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n0\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 200 + b"\r\n\r\n",
    b"GET /status?x=y HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    b'POST /write HTTP/1.1\r\nHost: x\r\nContent-Length: 25\r\n\r\n{"key":"k","value":"vvvv"}'[:-1],
    b"GET /read?key=k HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    _GET + b"Host: x\r\nConnection: close\r\n\r\n",
]
_BYTES = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"/", b"#", b"?",
    b"%", b"%00", b"0", b"1", b"f", b"-", b"+", b"_", b"\x7f", b"\x80", b"\xff", b"\x0b",
    b"HTTP/1.1", b"HTTP/1.0", b"chunked",
    b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"\r\n ",
    b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"Host: y\r\n", b"Connection: close\r\n",
    b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n", SMUGGLED,
]  # fmt: skip
_TRICKS = [trick for trick in TRICKS.values() if len(trick) < 4096]
_RANDOM_BYTES_MAX = 200
_CUTS_MAX = 4


def request_case(seed: int, number: int) -> bytes:
    """What one client sends before it asks for something that is right."""
    chance = random.Random(seed * 1_000_003 + number)
    kind = chance.random()
    if kind < 0.02:
        return chance.randbytes(chance.randrange(1, _RANDOM_BYTES_MAX))
    if kind < 0.25:
        case = chance.choice(_TRICKS)
        if kind < 0.10:
            return case
        if kind < 0.15:
            return chance.choice(_GOOD) + case
    else:
        case = b"".join(chance.choice(_GOOD) for _ in range(chance.choice((1, 1, 1, 2, 3))))
    data = bytearray(case)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 8))):
        _change(chance, data)
    return bytes(data)


def _change(chance: random.Random, data: bytearray) -> None:
    at = chance.randrange(len(data) + 1)
    how = chance.randrange(7)
    if how == 0:
        data[at : at + 1] = bytes([chance.randrange(256)])
    elif how == 1:
        del data[at : at + chance.choice((1, 1, 2, 5))]
    elif how == 2:
        del data[at:]
    elif how == 3:
        line = data.find(b"\r\n", at)
        start = data.rfind(b"\n", 0, at) + 1
        data[start:start] = data[start : line + 2] if line >= 0 else b""
    elif how == 4 and at < len(data):
        data[at] ^= 1 << chance.randrange(8)
    else:
        data[at:at] = chance.choice(_BYTES)


def pieces(seed: int, number: int, data: bytes) -> list[bytes]:
    """The same bytes as they may arrive."""
    chance = random.Random(seed * 1_000_033 + number)
    if chance.random() < 0.5 or len(data) < 2:
        return [data]
    cuts = sorted(chance.randrange(1, len(data)) for _ in range(chance.randint(1, _CUTS_MAX)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
