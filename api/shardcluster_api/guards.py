"""What both front ends look at before they let a request in.

Law: no web page of another site may change anything here through somebody's browser.  Browsers
send `Origin` with every such request; one that is not this gateway's own host is refused.
Programs other than browsers send none.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from shardcluster_api.errors import ApiError

__all__ = ["refusal_of_origin"]

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def refusal_of_origin(method: str, origin: str | None, host: str | None) -> ApiError | None:
    """The error for a request that another site's page sent, else None."""
    if origin is None or method in _READING:
        return None
    try:
        own = urlsplit(origin).netloc.lower() == (host or "").lower() != ""
    except ValueError:
        own = False
    if own:
        return None
    return ApiError(403, "CrossOrigin", "Pages of other sites may not change anything here.")
