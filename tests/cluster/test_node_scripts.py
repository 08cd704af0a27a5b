"""The scripts of a Kubernetes node, against real servers on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.cluster.mini_cluster import eventually
from tests.cluster.script_nodes import PASSWORD, ScriptNode, ScriptNodes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

AT_ONCE_S = 5.0  # with processes to start on a busy machine
SHARD_ID = re.compile(r"shard-id=[0-9a-f]{40}")
LOOK_S = 2.0  # for as long something must not happen


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[ScriptNodes]:
    made = ScriptNodes(tmp_path / "nodes")
    yield made
    made.end()


def _becomes(node: ScriptNode, role: str) -> Callable[[], Coroutine[Any, Any, bool]]:
    async def check() -> bool:
        return await node.answers() and await node.role() == role

    return check


async def test_a_password_of_any_bytes_is_taken_from_the_file_and_shown_nowhere(
    nodes: ScriptNodes,
) -> None:
    """The server wants the password; no command line and no log has it."""
    node = nodes.make("node")
    await node.up()
    assert node.process is not None
    told = " ".join(psutil.Process(node.process.pid).cmdline()) + node.log
    assert PASSWORD not in told
    assert (await node.call("CONFIG", "GET", "masterauth"))[1].decode() == PASSWORD
    assert node.run("probe.sh", "ready").returncode == 0
    environment = psutil.Process(node.process.pid).environ()
    assert not any(PASSWORD in value for value in environment.values())


def test_a_node_without_a_password_does_not_start(nodes: ScriptNodes) -> None:
    """A missing or empty file ends the start with a sentence, not an open server."""
    node = nodes.make("node")
    (node.folder / "auth/password").write_text("\n")
    assert node.start().wait(AT_ONCE_S) != 0
    assert "the password is empty" in node.log
    (node.folder / "auth/password").unlink()
    assert node.start().wait(AT_ONCE_S) != 0
    assert "the password can't be read" in node.log


async def test_a_folder_has_one_server(nodes: ScriptNodes) -> None:
    """A second server waits until the first has left the folder."""
    node = nodes.make("node")
    await node.up()
    first, first_id = node.process, await node.id()
    assert first is not None
    second = node.start()
    await eventually(lambda: _says(node, "waiting for another server"), "the second one waits")
    assert second.poll() is None
    first.kill()
    first.wait()
    await eventually(node.answers, "the second one serves")
    assert await node.id() == first_id


async def _says(node: ScriptNode, text: str) -> bool:
    return text in node.log


# -- probes ---------------------------------------------------------------------------------


async def test_a_node_that_does_not_run_is_neither_ready_nor_alive(nodes: ScriptNodes) -> None:
    """Both probes fail without a server, and say so."""
    node = nodes.make("node")
    for question in ("ready", "alive"):
        answer = node.run("probe.sh", question)
        assert answer.returncode != 0
        assert f"not {question}" in answer.stderr


async def test_a_loading_node_is_alive_and_not_ready(nodes: ScriptNodes) -> None:
    """Reading much data from disk is no reason to be killed."""
    (node,) = await nodes.form(1, 0, memory_only=False)
    for number in range(200):
        await node.call("SET", f"key-{number}", hashlib.sha512(bytes(number)).hexdigest())
    await node.call("BGREWRITEAOF")  # as a snapshot, between whose keys it answers

    async def rewritten() -> bool:
        return b"aof_rewrite_in_progress:0" in await node.call("INFO", "persistence")

    await eventually(rewritten, "it is written")
    node.kill()
    node.write_config("key-load-delay 50000\nloading-process-events-interval-bytes 1024\n")
    node.start()

    async def loading() -> bool:
        return "LOADING" in (await node.run_async("probe.sh", "ready")).stderr

    await eventually(loading, "it is loading")
    assert (await node.run_async("probe.sh", "alive")).returncode == 0


async def test_a_node_busy_with_a_script_is_alive_and_not_ready(nodes: ScriptNodes) -> None:
    """A script that runs on and on can be ended without a restart."""
    node = nodes.make("node", more="busy-reply-threshold 50\n")
    await node.up()
    endless = asyncio.create_task(_endless(node))
    try:

        async def busy() -> bool:
            return "BUSY" in (await node.run_async("probe.sh", "ready")).stderr

        await eventually(busy, "it is busy")
        assert (await node.run_async("probe.sh", "alive")).returncode == 0
    finally:
        node.kill()
        await asyncio.gather(endless, return_exceptions=True)


async def _endless(node: ScriptNode) -> None:
    await node.call("EVAL", "while true do end", 0)


async def test_a_node_that_hangs_is_not_alive(nodes: ScriptNodes) -> None:
    """Nothing at all for four seconds is no sign of life, and the probe itself ends in time."""
    node = nodes.make("node")
    await node.up()
    assert node.process is not None
    node.process.send_signal(signal.SIGSTOP)
    began_s = time.monotonic()
    assert (await node.run_async("probe.sh", "alive")).returncode != 0
    assert time.monotonic() - began_s < AT_ONCE_S + 4
    node.process.send_signal(signal.SIGCONT)


async def test_a_password_changed_a_moment_ago_keeps_a_node_ready(nodes: ScriptNodes) -> None:
    """The file in the pod follows some seconds later; no traffic is turned away for that."""
    node = nodes.make("node")
    await node.up()
    (node.folder / "auth/password").write_text("another\n")
    assert node.run("probe.sh", "ready").returncode == 0
    assert node.run("probe.sh", "alive").returncode == 0


async def test_a_replica_whose_master_is_away_is_ready(nodes: ScriptNodes) -> None:
    """It still serves reads."""
    masters = await nodes.form(1, 1, memory_only=False)
    masters[0].kill()

    async def link_is_down() -> bool:
        return b"master_link_status:down" in await masters[1].call("INFO", "replication")

    await eventually(link_is_down, "the link is down")
    assert masters[1].run("probe.sh", "ready").returncode == 0


# -- handing over ---------------------------------------------------------------------------


async def test_a_master_hands_over_before_it_is_stopped(nodes: ScriptNodes) -> None:
    """After stop.sh the node is a replica of its former replica, which has every write."""
    master, _, _, replica = await nodes.form(3, 1, memory_only=True)
    await master.call("SET", "{06S}key", "value")  # slot 0
    answer = await master.run_async("stop.sh")
    assert answer.returncode == 0, answer.stderr
    assert await master.role() == "slave"
    await eventually(_becomes(replica, "master"), "the replica took over")
    assert await replica.call("GET", "{06S}key") == b"value"


async def test_who_has_nothing_to_hand_over_ends_at_once(nodes: ScriptNodes) -> None:
    """A replica, a master without a replica, and a node that does not answer."""
    _, lonely, _, replica = await nodes.form(3, 1, memory_only=True)
    silent = nodes.make("silent")
    for node in (lonely, replica, silent):
        began_s = time.monotonic()
        assert (await node.run_async("stop.sh")).returncode == 0
        assert time.monotonic() - began_s < AT_ONCE_S
    assert await lonely.role() == "master"
    assert await replica.role() == "slave"


# -- the empty restart ----------------------------------------------------------------------


async def test_a_memory_only_master_comes_back_after_its_replica_took_over(
    nodes: ScriptNodes,
) -> None:
    """Started again at once it waits, then begins under a new id; nothing is lost."""
    master, _, _, replica = await nodes.form(3, 1, memory_only=True)
    old_id = await master.id()
    await master.call("SET", "{06S}key", "value")
    await master.call("WAIT", 1, 2000)
    master.kill()
    master.start()
    await eventually(_becomes(replica, "master"), "the replica took over")
    await eventually(master.answers, "the old master is back")
    assert await master.id() != old_id
    assert await replica.call("GET", "{06S}key") == b"value"
    assert "waiting for a replica to take over" in master.log


async def test_a_master_killed_right_after_it_took_over_is_guarded_too(nodes: ScriptNodes) -> None:
    """Neither it nor the others have heard yet that the old master follows it; that one has."""
    master, _, _, replica = await nodes.form(3, 1, memory_only=True)
    await master.call("SET", "{06S}key", "value")
    assert (await master.run_async("stop.sh")).returncode == 0
    assert await replica.role() == "master"
    old_id = await replica.id()
    replica.kill()
    replica.start()
    await eventually(_becomes(master, "master"), "the first master took over again")
    await eventually(replica.answers, "the other one is back")
    assert await replica.id() != old_id
    assert await master.call("GET", "{06S}key") == b"value"


async def test_a_memory_only_master_without_a_replica_starts_at_once(nodes: ScriptNodes) -> None:
    """There is nobody whose copy it could harm."""
    _, lonely, _ = await nodes.form(3, 0, memory_only=True)
    old_id = await lonely.id()
    lonely.kill()
    await lonely.up()
    assert await lonely.id() != old_id


async def test_a_memory_only_replica_keeps_its_id(nodes: ScriptNodes) -> None:
    """It has nothing that anybody could copy, and joins its master again by itself."""
    _, _, _, replica = await nodes.form(3, 1, memory_only=True)
    old_id = await replica.id()
    replica.kill()
    await replica.up()
    assert await replica.id() == old_id

    async def follows() -> bool:
        return b"master_link_status:up" in await replica.call("INFO", "replication")

    await eventually(follows, "it follows again")


async def test_silence_is_no_evidence(nodes: ScriptNodes) -> None:
    """With nobody answering a former master waits on, and ends when it is told to."""
    master, replica = await nodes.form(1, 1, memory_only=True)
    replica.kill()
    master.kill()
    script = master.start()
    await eventually(lambda: _says(master, "no other node can tell"), "it waits")
    await asyncio.sleep(LOOK_S)
    assert script.poll() is None
    assert not await master.answers()
    script.terminate()
    assert await asyncio.to_thread(script.wait, AT_ONCE_S) == 143


async def test_a_replica_that_lost_everything_is_not_waited_for(nodes: ScriptNodes) -> None:
    """When master and replica end together there is no copy left, and the shard goes on empty."""
    master, replica = await nodes.form(1, 1, memory_only=True)
    await master.call("SET", "key", "value")
    old_id = await master.id()
    master.kill()
    replica.kill()
    await replica.up()
    await master.up()
    assert await master.id() != old_id


async def test_a_replica_with_data_is_waited_for(nodes: ScriptNodes) -> None:
    """Without a majority nobody is voted in; the copy stays whole until somebody decides."""
    master, replica = await nodes.form(1, 1, memory_only=True)
    await master.call("SET", "key", "value")
    await master.call("WAIT", 1, 2000)
    master.kill()
    script = master.start()
    await asyncio.sleep(LOOK_S)
    assert script.poll() is None
    assert not await master.answers()
    assert await replica.call("DBSIZE") == 1
    await replica.call("CLUSTER", "FAILOVER", "TAKEOVER")
    await eventually(master.answers, "the old master is back")
    assert await replica.call("DBSIZE") == 1


async def test_a_node_with_storage_comes_back_as_it_was(nodes: ScriptNodes) -> None:
    """The guard is for empty memory only."""
    master, _ = await nodes.form(1, 1, memory_only=False)
    old_id = await master.id()
    await master.call("SET", "key", "value")
    assert master.process is not None
    master.process.terminate()
    await asyncio.to_thread(master.process.wait, AT_ONCE_S + 10)
    await master.up()
    assert await master.id() == old_id
    assert await master.call("DBSIZE") == 1


async def test_a_replaced_master_forgets_what_it_imported(nodes: ScriptNodes) -> None:
    """Else the engine might let it take its shard back; see `shardcluster_runtime.platforms`."""
    master, source, _, replica = await nodes.form(3, 1, memory_only=False)
    await master.call("CLUSTER", "SETSLOT", 10_000, "IMPORTING", await source.id())

    async def written() -> bool:
        return "[10000-<-" in (master.folder / "data/nodes.conf").read_text()

    await eventually(written, "the mark is in its file")
    master.kill()
    await eventually(_becomes(replica, "master"), "the replica took over")
    await master.up()
    assert "forgetting the slots" in master.log
    await eventually(_becomes(master, "slave"), "the old master follows")


async def test_a_master_that_still_leads_keeps_what_it_imports(nodes: ScriptNodes) -> None:
    """Its keys would be deleted at its start."""
    master, source, _ = await nodes.form(3, 0, memory_only=False)
    await master.call("CLUSTER", "SETSLOT", 10_000, "IMPORTING", await source.id())
    master.kill()
    await master.up()
    assert b"[10000-<-" in await master.call("CLUSTER", "NODES")
    assert "forgetting" not in master.log


async def test_a_file_with_two_ids_of_one_shard_is_mended(nodes: ScriptNodes) -> None:
    """Some engines take it for corrupt, and would never start again."""
    master, replica = await nodes.form(1, 1, memory_only=False)
    path = replica.folder / "data/nodes.conf"

    async def agreed() -> bool:
        return len(set(SHARD_ID.findall(path.read_text()))) == 1

    await eventually(agreed, "both have one id in the file")
    replica.kill()
    lines = [
        SHARD_ID.sub(f"shard-id={'0' * 40}", line) if "myself" in line else line
        for line in path.read_text().splitlines(keepends=True)
    ]
    path.write_text("".join(lines))
    await replica.up()
    assert "they have their master's now" in replica.log
    assert await agreed()
    master.kill()
    await master.up()
    assert "shard ids" not in master.log
