"""The start script of a Compose node, run by `sh` on folders as nodes leave them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shardcluster_runtime.platforms._node_file import agree_on_shards, forget_imports

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = Path(__file__).resolve().parents[2] / "deploy/compose/start-valkey.sh"
OLD, HEIR, OTHER = "a" * 40, "b" * 40, "c" * 40
TIMEOUT_S = 20
IMPORTS = f"[16383-<-{OTHER}] [16382-<-{OTHER}]"


def _line(node_id: str, flags: str, epoch: int, slots: str, master: str = "-") -> str:
    address = f"10.0.0.1:6379@16379,,shard-id={node_id}"
    return f"{node_id} {address} {flags} {master} 0 0 {epoch} connected {slots}"


def _file(*lines: str) -> str:
    return "".join(f"{line.rstrip()}\n" for line in (*lines, "vars currentEpoch 9 lastVoteEpoch 0"))


def _started(folder: Path, *files: str) -> str:
    """Start the first of the nodes with these files; its file as the server finds it."""
    data, binaries = folder / "data", folder / "bin"
    binaries.mkdir()
    server = binaries / "valkey-server"
    server.write_text("#!/bin/sh\nexit 0\n")
    server.chmod(0o755)
    for number, content in enumerate(files):
        (data / f"node-{number}").mkdir(parents=True)
        (data / f"node-{number}" / "nodes.conf").write_text(content)
    subprocess.run(
        ["sh", str(SCRIPT)], check=True, timeout=TIMEOUT_S, capture_output=True,
        env={"PATH": f"{binaries}:{os.environ['PATH']}", "DATA_FOLDER": str(data),
             "ANNOUNCE_IP": "10.0.0.1"},
    )  # fmt: skip
    return (data / "node-0" / "nodes.conf").read_text()


def _mended(folder: Path, content: str, mend: Callable[[Path], None] = forget_imports) -> str:
    """What local processes make of it."""
    path = folder / "same.conf"
    path.write_text(content)
    mend(path)
    return path.read_text()


@pytest.mark.parametrize(
    "heirs",
    [
        [_file(_line(HEIR, "myself,master", 5, "0-8191"), _line(OTHER, "master", 2, "8192-16383"))],
        [_file(_line(HEIR, "myself,master", 5, f"0-4095 [4095->-{OTHER}]")),
         _file(_line(OTHER, "myself,master", 6, "4096-16383"))],
    ],
    ids=["heir", "heir has given slots on"],
)  # fmt: skip
def test_a_replaced_master_forgets_what_it_imported(tmp_path: Path, heirs: list[str]) -> None:
    """Others own, and claimed later, all that it owned.  Only these marks go, as elsewhere."""
    was = _file(
        _line(OLD, "myself,master", 1, f"0-8190 8191 [7->-{OTHER}] {IMPORTS}"),
        _line(HEIR, "slave", 1, "", OLD),
        _line(OTHER, "master", 2, "8192-16383"),
    )
    found = _started(tmp_path, was, *heirs)
    assert found == _mended(tmp_path, _mended(tmp_path, was), agree_on_shards)
    assert "-<-" not in found
    assert f"[7->-{OTHER}]" in found


@pytest.mark.parametrize(
    ("own", "others"),
    [
        (f"0-8191 {IMPORTS}", [_file(_line(HEIR, "myself,slave", 1, "", OLD))]),
        (f"0-8191 {IMPORTS}", [_file(_line(HEIR, "myself,master", 1, "0-8191"))]),
        (f"0-8191 {IMPORTS}", [_file(_line(OTHER, "myself,master", 5, "0 8192-16383"))]),
        (f"0-8191 {IMPORTS}", [_file(_line(OTHER, "myself,master", 5, ""),
                                     _line(HEIR, "master", 6, "0-8191"))]),
        (IMPORTS, [_file(_line(OTHER, "myself,master", 5, "0-16383"))]),
        (f"0-8191 {IMPORTS}", []),
    ],
    ids=["not replaced", "no later claim", "one slot moved", "hearsay", "owns nothing", "alone"],
)  # fmt: skip
def test_one_that_may_still_lead_keeps_its_marks(
    tmp_path: Path, own: str, others: list[str]
) -> None:
    """Else it would delete the keys that have come to it."""
    was = _file(_line(OLD, "myself,master", 1, own), _line(OTHER, "master", 2, "8192-16383"))
    assert _started(tmp_path, was, *others) == was


def test_a_file_without_marks_is_left_alone(tmp_path: Path) -> None:
    """As almost always."""
    was = _file(_line(OLD, "myself,master", 1, "0-8191"))
    heir = _file(_line(HEIR, "myself,master", 5, "0-8191"))
    assert _started(tmp_path, was, heir) == was


def test_a_replica_has_the_shard_id_of_its_master(tmp_path: Path) -> None:
    """Also of one that follows a replica; else some engines take the file for corrupt."""
    was = _file(
        _line(OTHER, "slave,fail", 1, "", HEIR),
        _line(OLD, "master", 1, "0-8190 8191"),
        _line(HEIR, "myself,slave", 1, "", OLD),
    )
    found = _started(tmp_path, was)
    assert found == _mended(tmp_path, was, agree_on_shards)
    assert found == was.replace(f"shard-id={OTHER}", f"shard-id={OLD}").replace(
        f"shard-id={HEIR}", f"shard-id={OLD}"
    )


@pytest.mark.parametrize("master", ["-", "d" * 40], ids=["master", "of a stranger"])
def test_other_shard_ids_stay(tmp_path: Path, master: str) -> None:
    """Those of masters, and of replicas whose master the file does not know."""
    flags = "master" if master == "-" else "slave"
    was = _file(_line(OLD, "myself,master", 1, "0-8191"), _line(HEIR, flags, 1, "", master))
    assert _started(tmp_path, was) == was == _mended(tmp_path, was, agree_on_shards)
