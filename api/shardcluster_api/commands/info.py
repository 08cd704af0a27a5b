"""One INFO of the INFOs of all shards' masters.

Law: counters and amounts of `_SUMMED` are summed up; a field that every master tells alike is given
once; what differs and can't be summed (ports, ids, process numbers) is left out of the sections,
since any one of them would be wrong of the others.  `# Shards` lists them one by one.
"""

from __future__ import annotations

import re

__all__ = ["joined_info"]

_SUMMED = frozenset({
    "active_defrag_hits", "blocked_clients", "clients_in_timeout_table", "connected_clients",
    "connected_slaves", "evicted_clients", "evicted_keys", "expired_keys",
    "instantaneous_input_kbps", "instantaneous_ops_per_sec", "instantaneous_output_kbps",
    "keyspace_hits", "keyspace_misses",
    "maxmemory", "pubsub_channels", "pubsub_clients", "pubsub_patterns", "rejected_connections",
    "total_commands_processed", "total_connections_received", "total_error_replies",
    "total_net_input_bytes", "total_net_output_bytes", "total_reads_processed",
    "total_system_memory", "total_writes_processed", "tracking_clients", "used_cpu_sys",
    "used_cpu_user", "used_memory", "used_memory_dataset", "used_memory_lua",
    "used_memory_overhead", "used_memory_peak", "used_memory_rss", "used_memory_scripts",
    "watching_clients",
})  # fmt: skip
_KEYSPACE = re.compile(r"(keys|expires)=(\d+)")
_SHOWN = ("used_memory", "connected_clients", "instantaneous_ops_per_sec")


def joined_info(names: list[str], replies: list[bytes]) -> bytes:
    """`names` are the shards', in the replies' order."""
    told = [_sections(reply.decode("utf-8", "replace")) for reply in replies]
    lines = ["# Shards", f"shards:{len(told)}"]
    for index, (name, sections) in enumerate(zip(names, told, strict=True)):
        fields = {field: value for section in sections.values() for field, value in section.items()}
        shown = [f"{field}={fields[field]}" for field in _SHOWN if field in fields]
        lines.append(f"shard{index}:" + ",".join([f"name={name}", *shown]))
    for section in dict.fromkeys(name for sections in told for name in sections):
        lines += ["", f"# {section}"]
        each = [sections.get(section, {}) for sections in told]
        for field in dict.fromkeys(name for fields in each for name in fields):
            value = _joined(field, [fields[field] for fields in each if field in fields])
            if value is not None:
                lines.append(f"{field}:{value}")
    return "".join(f"{line}\r\n" for line in lines).encode()


def _sections(text: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    fields = found.setdefault("Server", {})
    for line in text.splitlines():
        if line.startswith("# "):
            fields = found.setdefault(line[2:].strip(), {})
        elif ":" in line:
            field, _, value = line.partition(":")
            fields[field] = value
    return {name: fields for name, fields in found.items() if fields}


def _joined(field: str, values: list[str]) -> str | None:
    if field in _SUMMED:
        total = sum(map(float, values))
        return f"{total:.0f}" if all(value.isdigit() for value in values) else f"{total:.6f}"
    if field.startswith("db") and field[2:].isdigit():
        sums = {"keys": 0, "expires": 0}
        for value in values:
            for name, number in _KEYSPACE.findall(value):
                sums[name] += int(number)
        return ",".join(f"{name}={number}" for name, number in sums.items())
    return values[0] if len(set(values)) == 1 else None
