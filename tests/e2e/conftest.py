"""Where the end-to-end tests run, and what each of them gets.

They run on whatever KUBECONFIG names, but only on a context that is meant for tests.  Tests marked
`rig` need faults that only a rig can cause (a machine without power, a cut network, an API server
that is away); the environment names the command that does it.  Tests marked `serial` disturb all
others: `make e2e` runs them alone.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.e2e.hand import lend_a_hand
from tests.e2e.installed import install, operator_logs
from tests.e2e.kube import Refused, Store, foreign_context, kubectl, operator_image, until
from tests.e2e.rig import REQUIRE_RIG, RIG, Rig, all_machines_ready

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a rig the tests that need one are left out, by name."""
    if os.environ.get(RIG):
        return
    needing = [item for item in items if item.get_closest_marker("rig")]
    if not needing:
        return
    names = ", ".join(item.name for item in needing)
    sentence = f"Not run here ({RIG} names no command that cuts networks and power): {names}"
    if os.environ.get(REQUIRE_RIG):
        raise pytest.UsageError(sentence)
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in needing]
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(sentence)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fixtures learn whether their test failed."""
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.fixture(scope="session")
def operator(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Installed, once for all workers; its image."""
    if why := foreign_context():
        pytest.exit(why, returncode=2)
    shared = tmp_path_factory.getbasetemp().parent
    # What kubectl learnt of another cluster at the same address would be wrong here.
    os.environ["KUBECACHEDIR"] = str(shared / "kubectl")
    done = shared / f"installed-{os.environ.get('PYTEST_XDIST_TESTRUNUID', uuid.uuid4().hex)}"
    with done.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            install()
            lend_a_hand()
            done.touch()
    return operator_image()


@pytest.fixture
def namespace(operator: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A new one in which only restricted pods may run."""
    assert operator
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    try:
        yield name
    finally:
        if request.node.stash.get(_FAILED, False):
            _tell(name)
        kubectl("delete", "namespace", name, "--wait=false")


def _tell(namespace: str) -> None:
    """What was to be seen when a test failed, into its output."""
    for arguments in (
        ("get", "shc,sts,pods,pvc", "-o", "wide"),
        ("describe", "shc"),
        ("get", "events", "--sort-by=.lastTimestamp"),
    ):
        try:
            print(kubectl("-n", namespace, *arguments))  # noqa: T201
        except Refused as error:
            print(error)  # noqa: T201
    print(operator_logs())  # noqa: T201


@pytest.fixture
def store(namespace: str) -> Store:
    """A name for a ShardCluster; the test applies it."""
    return Store(namespace)


@pytest.fixture
def rig() -> Iterator[Rig]:
    """`rig("kill", "node1")`; what was not undone is undone at the end."""
    made = Rig()
    yield made
    made.undo()
    until(all_machines_ready, "all machines for the next test")
