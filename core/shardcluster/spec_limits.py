"""How big, small and long the fields of a spec may be; patterns match the whole text."""

from __future__ import annotations

SHARDS_MAX = 1000  # the engine's own advice for the size of a cluster
REPLICAS_MAX = 5  # a shard
RETIRED_MAX = 10_000  # names in `retire`; with SHARDS_MAX it keeps shard numbers in five digits
VIRTUAL_NODES_MAX = 1000
LOAD_BOUND_MAX = 0.5
WEIGHT_MIN, WEIGHT_MAX = 0.1, 100.0
RING_POINTS_MAX = 1_000_000  # 1,000 shards of 1,000 virtual nodes; planning takes their sort
NODE_TIMEOUT_MIN_MS, NODE_TIMEOUT_MAX_MS = 500, 60_000
KEYS_PER_SECOND_MAX = 1_000_000_000  # more than any engine does: the same as no limit
GATEWAYS_MAX = 100
CONFIG_MAX = 100  # settings; the list has fewer
MEMORY_LEAST = "16Mi"  # an idle engine with its backlog; "100m" is a tenth of a byte
STORAGE_LEAST = "16Mi"
CPU_LEAST = "1m"  # what Kubernetes can count

# 40 characters, so that the names made from it fit into Kubernetes' 63.
NAME = r"[a-z0-9](?:[-a-z0-9]{0,38}[a-z0-9])?"
SUBDOMAIN = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)*"
IMAGE = r"[A-Za-z0-9][A-Za-z0-9_.:/@-]*"
SHARD_NAME = r"shard-(?:0|[1-9][0-9]{0,4})"
NAME_CHARS_MAX, SUBDOMAIN_CHARS_MAX, IMAGE_CHARS_MAX = 40, 253, 500
