"""Where the end-to-end tests run, and what each of them gets.

They run on whatever KUBECONFIG names, but only on a context that is meant for tests.  Tests marked
`rig` need faults that only a rig can cause (a machine without power, a cut network, an API server
that is away); the environment names the command that does it.  Tests marked `serial` disturb all
others: `make e2e` runs them alone.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.hand import lend_a_hand
from tests.e2e.installed import install, operator_logs
from tests.e2e.kube import Refused, Store, kubectl, kubectl_json, operator_image, until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

RIG = "SHARDCLUSTER_E2E_RIG"
REQUIRE_RIG = "SHARDCLUSTER_E2E_REQUIRE_RIG"
CONTEXT = "SHARDCLUSTER_E2E_CONTEXT"
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


def _refuse_foreign_contexts() -> None:
    done = subprocess.run(
        ["kubectl", "config", "current-context"], capture_output=True, text=True, check=False
    )
    context = done.stdout.strip()
    if done.returncode or not context:
        pytest.exit(f"No Kubernetes to test on: {done.stderr.strip()}", returncode=2)
    if not context.startswith(("kind-", "localkube")) and os.environ.get(CONTEXT) != context:
        pytest.exit(
            f"{context} is not a context for tests (kind-…, localkube…); {CONTEXT}={context} says"
            " that it is.",
            returncode=2,
        )


@pytest.fixture(scope="session")
def operator(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Installed, once for all workers; its image."""
    _refuse_foreign_contexts()
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
def rig() -> Iterator[Callable[..., None]]:
    """`rig("kill", "node1")`; what was not undone is undone at the end."""
    command = shlex.split(os.environ[RIG])
    undo: list[tuple[str, ...]] = []
    opposite = {"kill": "start", "partition": "heal"}

    def ask(*words: Any) -> None:
        given = tuple(str(word) for word in words)
        subprocess.run([*command, *given], check=True, capture_output=True)
        if given[0] in opposite:
            undo.append((opposite[given[0]], *given[1:]))
        elif given in undo:
            undo.remove(given)

    yield ask
    for words in reversed(undo):
        subprocess.run([*command, *words], check=True, capture_output=True)
    until(_all_machines_ready, "all machines for the next test")


def _all_machines_ready() -> bool:
    machines = kubectl_json("get", "nodes")["items"]
    return all(
        condition["status"] == "True"
        for machine in machines
        for condition in machine["status"]["conditions"]
        if condition["type"] == "Ready"
    )
