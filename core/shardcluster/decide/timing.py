"""How long a wait lasts and how much staleness is borne; every number with its origin."""

from __future__ import annotations

__all__ = ["FRESHNESS_TOLERANCE_MS", "IDLE_S", "SOON_S", "TURN_MS"]

# Nothing to do: deaths wake the loop at once, this only bounds what no event tells.
IDLE_S = 1.0
# Something is under way in the engine (a handshake, a vote, a first copy): look again soon.
SOON_S = 0.05
# Moves that can't share a slice have their turns; a slice lasts about so long.
TURN_MS = 2_000
# A replica's `master_link_down_since_seconds` counts whole seconds, and the last pong that
# others had of the master may be up to half a node timeout old: a link that seems to have
# broken this long before the master's last sign of life did break with it.
FRESHNESS_TOLERANCE_MS = 2_500
