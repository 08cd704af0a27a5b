"""Every limit of the gateway in one place.

Law: whatever a client sends or a node does, memory and time per request stay under these numbers.
Who goes over a limit gets a 4xx (theirs) or a 503 with Retry-After (ours), never a slow death.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "BATCH_ANSWER_BYTES_MAX", "BATCH_OPERATIONS_MAX", "BODY_BYTES_MAX", "CONNECTIONS_MAX",
    "CONNECT_TIMEOUT_S", "CONTROL_TIMEOUT_S", "DURABILITY_WAIT_S", "HEADERS_MAX", "HEAD_BYTES_MAX",
    "HEAD_TIMEOUT_S", "HEDGE_AFTER_S", "KEEP_ALIVE_S", "KEY_BYTES_MAX", "RECEIVE_TIMEOUT_S",
    "REQUEST_DEADLINE_S", "RETRY_AFTER_S", "SUBSCRIBERS_MAX", "TTL_SECONDS_MAX", "URL_BYTES_MAX",
    "VALUE_BYTES_MAX", "WAIT_CONNECTIONS_MAX", "Limits",
]  # fmt: skip

KEY_BYTES_MAX = 16 * 1024
VALUE_BYTES_MAX = 8 * 1024 * 1024
# A value of the largest size still fits when it comes as base64 inside JSON (4/3) with escapes.
BODY_BYTES_MAX = 16 * 1024 * 1024
# The request line and all headers; a key of the largest size is three times as long in a path.
HEAD_BYTES_MAX = 96 * 1024
HEADERS_MAX = 100
URL_BYTES_MAX = 64 * 1024
BATCH_OPERATIONS_MAX = 1000
BATCH_ANSWER_BYTES_MAX = 64 * 1024 * 1024  # of the values that one batch reads
TTL_SECONDS_MAX = 100 * 365 * 86_400

CONNECTIONS_MAX = 20_000  # of clients at once; an idle one costs some KiB
RETRY_AFTER_S = 1
SUBSCRIBERS_MAX = 1000  # each holds one connection to a node

REQUEST_DEADLINE_S = 5.0  # all redirects, retries and waiting of one request together
CONNECT_TIMEOUT_S = 1.0
HEDGE_AFTER_S = 0.25  # a read that waits longer is asked of another node, too
DURABILITY_WAIT_S = 2.5  # for WAIT and WAITAOF; `appendfsync everysec` may take 2 s
WAIT_CONNECTIONS_MAX = 64  # a node; each WAIT holds one connection while it waits
HEAD_TIMEOUT_S = 10.0  # for the rest of a request's head; a client that drips it is cut off
RECEIVE_TIMEOUT_S = 30.0  # for the rest of a request's body
KEEP_ALIVE_S = 75  # a connection without a request is kept so long
CONTROL_TIMEOUT_S = 10.0  # for the controller's answer to a change

NODE_SHARE = 4  # one part in so many of what may be under way, for what waits for one node


@dataclass(frozen=True, slots=True)
class Limits:
    """Those that depend on the machine and the store; settings.py reads them."""

    in_flight_max: int = 16_384  # operations at once; a batch counts once for each of its items
    buffered_bytes_max: int = 512 * 1024 * 1024  # of request bodies held at once
    unsent_bytes_max: int = 256 * 1024 * 1024  # of answers that clients are slow to read
    lag_bytes_max: int = 16 * 1024 * 1024  # a replica further behind gets no reads

    @property
    def node_share(self) -> int:
        """How many requests may be unanswered on one connection, and as many held back for a node.

        So a node that hangs takes at most half of `in_flight_max` from the requests to the others.
        """
        return max(1, self.in_flight_max // NODE_SHARE)
