"""What the tests with real server processes share; everything is ended by process id."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import psutil
import pytest

from shardcluster_runtime.server_binary import Server, find_server
from tests.cluster.plain_nodes import PlainNodes
from tests.cluster.ports import free_block
from tests.cluster.static_platforms import Maker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

END_TIMEOUT_S = 10.0


@pytest.fixture(scope="session")
def server() -> Server:
    """The server binary; its absence is an error, never a skip."""
    return find_server()


@pytest.fixture
def base_port() -> int:
    """The first of a row of free ports."""
    return free_block()


@pytest.fixture
def free_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for a store; nodes that a failed test left running in it are ended."""
    folder = tmp_path / "store"
    folder.mkdir()
    yield folder
    end_nodes_of(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start_plain_node(server: Server, tmp_path: Path) -> Iterator[PlainNodes]:
    """Call it for a new empty cluster-enabled node; all are ended when the test is over."""
    nodes = PlainNodes(server, tmp_path)
    yield nodes
    nodes.end()


@pytest.fixture(autouse=True)
def _nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    """Whatever way a test ends, no server that works below its folder outlives it."""
    yield
    end_nodes_of(tmp_path)


def end_nodes_of(folder: Path) -> None:
    """End every server process that works below the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.name().startswith(("valkey", "redis")) and process.cwd().startswith(
                f"{folder.resolve()}/"
            ):
                process.kill()
                found.append(process)
        except psutil.Error:
            continue
    psutil.wait_procs(found, timeout=END_TIMEOUT_S)


@pytest.fixture
async def make(free_folder: Path) -> AsyncIterator[Maker]:
    """Makes platforms on nodes that somebody else runs."""
    maker = Maker(free_folder)
    yield maker
    await maker.close()
