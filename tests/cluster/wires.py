"""Raw client connections, for what no well-behaved HTTP client does."""

from __future__ import annotations

import socket
from typing import Self

__all__ = ["DEADLINE_S", "Wire", "get", "put"]

DEADLINE_S = 30.0


class Wire:
    """A connection that reads whole answers."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        """A small `receive_buffer` keeps the kernel from reading in the client's place."""
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(DEADLINE_S)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def send(self, data: bytes) -> None:
        """All of it."""
        self.socket.sendall(data)

    def answer(self) -> tuple[int, bytes, dict[bytes, bytes]]:
        """Status, body, headers in lower case; status 0 when the connection ended instead."""
        first = self._file.readline()
        if not first:
            return 0, b"", {}
        headers: dict[bytes, bytes] = {}
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        return (
            int(first.split()[1]),
            self._file.read(int(headers.get(b"content-length", 0))),
            headers,
        )

    def close(self) -> None:
        """End it."""
        self._file.close()
        self.socket.close()


def put(key: bytes, value: bytes) -> bytes:
    """A PUT request."""
    head = b"PUT /v1/keys/%b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    return head % (key, len(value)) + value


def get(key: bytes) -> bytes:
    """A GET request."""
    return b"GET /v1/keys/%b HTTP/1.1\r\nHost: x\r\n\r\n" % key
