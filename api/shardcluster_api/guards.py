"""What both front ends look at before they let a request in, and what every answer says.

Law: no web page of another site may change anything here through somebody's browser, or read an
answer, unless the site is named.  Browsers send `Origin` with every such request; one that is
neither this gateway's own host nor named is refused.  Programs other than browsers send none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shardcluster_api.answers import Answer
from shardcluster_api.errors import ApiError

if TYPE_CHECKING:
    from shardcluster_api.answers import Headers

__all__ = ["COMMON_HEADERS", "NO_CORS", "Cors", "parse_origins", "refusal_of_origin"]

# Stored bytes are never to be taken for a web page.
COMMON_HEADERS: Headers = (("X-Content-Type-Options", "nosniff"),)

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = "GET, HEAD, POST, PUT, DELETE"
_MAX_AGE_S = 600
_SHOWN = ", ".join(
    [
        *(f"X-ShardCluster-{name}" for name in ("Slot", "Shard", "Node", "Role", "Stale")),
        *(f"X-ShardCluster-{name}" for name in ("Replicas-Acked", "Disks-Acked")),
        "ETag", "Retry-After", "Upstash-Sync-Token",
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cors:
    """The sites whose pages may use the gateway from a browser."""

    origins: frozenset[str] = frozenset()  # exact, like https://shop.example:8443

    def headers(self, origin: str | None) -> Headers:
        """What an answer says to a page of `origin`."""
        if not self.origins or origin is None:
            return ()
        if origin not in self.origins:
            return (("Vary", "Origin"),)
        return (
            ("Vary", "Origin"),
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", _SHOWN),
        )

    def marked(self, answer: Answer, origin: bytes | None) -> Answer:
        """The answer with these headers."""
        text = None if origin is None else origin.decode("latin-1")
        return replace(answer, headers=(*answer.headers, *self.headers(text)))

    def preflight(self, origin: str | None, wanted_headers: str | None) -> Answer | None:
        """The answer to a browser that asks before it sends; None for a site that isn't named."""
        if origin not in self.origins:
            return None
        headers = (
            *self.headers(origin),
            ("Access-Control-Allow-Methods", _METHODS),
            ("Access-Control-Allow-Headers", wanted_headers or "Authorization, Content-Type"),
            ("Access-Control-Max-Age", str(_MAX_AGE_S)),
        )
        return Answer(204, headers=headers)


NO_CORS = Cors()


def parse_origins(text: str) -> Cors:
    """From a list with commas; raises ValueError with a sentence."""
    found = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        parts = urlsplit(part)
        exact = f"{parts.scheme}://{parts.netloc}".lower()
        if parts.scheme not in {"http", "https"} or not parts.hostname or part.lower() != exact:
            message = f"{part!r} is not an origin like https://shop.example"
            raise ValueError(message)
        found.add(exact)
    return Cors(frozenset(found))


def refusal_of_origin(
    method: str, origin: str | None, host: str | None, cors: Cors = NO_CORS
) -> ApiError | None:
    """The error for a request that another site's page sent, else None."""
    if origin is None or method in _READING or origin in cors.origins:
        return None
    try:
        own = urlsplit(origin).netloc.lower() == (host or "").lower() != ""
    except ValueError:
        own = False
    if own:
        return None
    return ApiError(403, "CrossOrigin", "Pages of other sites may not change anything here.")
