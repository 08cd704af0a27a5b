"""Who may ask for what.

Law: an operation names the role it needs, a request carries the role it was given, and a stronger
role may do all that a weaker one may.  Without configured tokens everybody is an admin: then the
network is what keeps others out.
"""

from __future__ import annotations

import enum

from shardcluster_api.errors import ApiError

__all__ = ["Role", "refusal_of_role"]


class Role(enum.IntEnum):
    """What a request may do, the stronger the higher."""

    NONE = 0  # no token, or one that nobody gave out
    READ = 1
    WRITE = 2
    ADMIN = 3


def refusal_of_role(role: Role, needed: Role) -> ApiError | None:
    """The error for a request of `role` that wants what only `needed` may, else None."""
    if role >= needed:
        return None
    if role is Role.NONE:
        challenge = (("WWW-Authenticate", "Bearer"),)
        message = "This needs a token that is known here: Authorization: Bearer …"
        return ApiError(401, "Unauthorized", message, headers=challenge)
    message = f"This needs the role {needed.name.lower()}; the token has {role.name.lower()}."
    return ApiError(403, "Forbidden", message)
