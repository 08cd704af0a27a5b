"""Engine settings that the spec names are kept true on every node, while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardcluster.actions import Configure, Decision, Reason

if TYPE_CHECKING:
    from shardcluster.picture import Picture
    from shardcluster.spec import Spec

__all__ = ["LOGS_USUALLY", "LOG_LEVEL", "same_value", "settings", "wanted_settings"]

LOG_LEVEL = "loglevel"
LOGS_USUALLY = "notice"  # unless the spec says otherwise; less while slots move

_UNITS = {"k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3}


def wanted_settings(spec: Spec) -> dict[str, str]:
    """Settings by name as the spec wants them on every node."""
    wanted = {
        "cluster-node-timeout": str(spec.failover.node_timeout_ms),
        LOG_LEVEL: LOGS_USUALLY,
    }
    if spec.max_memory_bytes is not None:
        wanted["maxmemory"] = str(spec.max_memory_bytes)
    wanted.update(spec.config)
    return wanted


def settings(picture: Picture) -> Decision | None:
    """CONFIG SET at the first node where a wanted setting has another value."""
    wanted = wanted_settings(picture.spec)
    for node in picture.answering:
        view = node.view
        assert view is not None
        now = dict(view.config)
        differing = tuple(
            (name, value)
            for name, value in wanted.items()
            if name in now and not same_value(now[name], value)
        )
        if differing:
            return Decision(
                Configure(node.name, differing),
                Reason.CONFIGURING,
                f"Setting {', '.join(name for name, _ in differing)} on {node.name}.",
            )
    return None


def same_value(left: str, right: str) -> bool:
    """Whether two ways to write a setting mean the same: `100mb` is `104857600`."""
    return _plain(left) == _plain(right)


def _plain(value: str) -> str:
    words = []
    for word in value.lower().split():
        digits = word.rstrip("bgkm")
        unit = word[len(digits) :]
        if digits.isdigit() and unit in _UNITS:
            words.append(str(int(digits) * _UNITS[unit]))
        else:
            words.append(word)
    return " ".join(words)
