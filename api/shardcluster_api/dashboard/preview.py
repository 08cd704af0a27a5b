"""What adding, removing or rebalancing would do, before anybody does it.

Law: nothing is changed.  The edits are those that the real wishes make (`edits.py`), so what is
refused here with a code and a sentence would be refused there, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shardcluster.edits import UNKNOWN_SHARD, EditError, add_shard, remove_shard
from shardcluster.spec import SpecError, parse
from shardcluster_api import codec
from shardcluster_api.errors import ControllerRefused

if TYPE_CHECKING:
    from shardcluster.spec import Spec
    from shardcluster_api.gateway import Gateway

__all__ = ["preview"]

Document = dict[str, Any]


async def preview(gateway: Gateway, body: bytes) -> Document:
    """The plan; raises BadRequest, ControllerRefused or ControllerUnavailable."""
    change, node = codec.parse_change(body)
    state = await gateway.control.state()
    try:
        spec = parse(state["spec"])
        edited = _edited(spec, change, node, state)
    except EditError as error:
        status = 404 if error.code == UNKNOWN_SHARD else 409
        raise ControllerRefused(status, error.code, error.sentence) from error
    except SpecError as error:
        raise ControllerRefused(422, "InvalidSpec", str(error)) from error
    plan = await gateway.control.preview(edited.document())
    before, after = spec.wanted_shards(), edited.wanted_shards()
    changed = sorted(set(before) ^ set(after))
    return {
        "change": change,
        "shard": changed[0] if changed else None,
        "message": _message(change, changed, plan),
        "plan": plan,
    }


def _edited(spec: Spec, change: str, node: str, state: Document) -> Spec:
    if change == "rebalance":
        return spec
    if change == "remove":
        return remove_shard(spec, node, present={shard["name"] for shard in state["shards"]})
    bigger, _ = add_shard(spec)
    spare, needed = state.get("spare_nodes"), 1 + spec.replicas_per_shard
    if spare is not None and spare < needed:
        code = "NoSpareNode"
        message = f"A new shard needs {needed} spare nodes and there are {spare}: start more first."
        raise EditError(code, message)
    return bigger


def _message(change: str, changed: list[str], plan: Document) -> str:
    slots, keys = plan["slots"], plan["keys"]
    moving = f"{slots:,} slots with about {keys:,} keys would move"
    if change == "rebalance":
        return f"{moving}." if slots else "Every shard is within its share: nothing would move."
    what = "be added" if change == "add" else "be drained and removed"
    return f"{changed[0]} would {what}; {moving}."
