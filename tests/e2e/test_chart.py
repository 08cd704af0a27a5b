"""The chart, rendered with several sets of values and looked at by a real API server."""

from __future__ import annotations

import subprocess

import pytest

from tests.e2e.installed import ROOT
from tests.e2e.kube import kubectl

CHART = str(ROOT / "charts" / "shardcluster")
VALUES: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "one namespace": ("watchNamespaces={default}",),
    "with a store": ("cluster.create=true", "cluster.spec.shards=5"),
    "placed": (
        "replicas=1", "nodeSelector.disk=ssd", "tolerations[0].operator=Exists",
        "imagePullSecrets[0].name=login", "image.tag=1.2.3", "gatewayImage.repository=mirror/api",
    ),
}  # fmt: skip
WRONG = (
    ("replicas=none", "replicas"),
    ("watchNamespaces=default", "watchNamespaces"),
    ("image.tagg=1", "tagg"),
    ("watchNamespaces={a,b}", "watchNamespaces"),
)


def _render(*settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["helm", "template", "shc", CHART, "--namespace", "default", "--kube-version=1.29.0",
         *(word for setting in settings for word in ("--set", setting))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("settings", VALUES.values(), ids=VALUES)
def test_what_it_renders_is_taken(operator: str, settings: tuple[str, ...]) -> None:
    """Every object, with strict fields."""
    assert operator
    rendered = _render(*settings)
    assert not rendered.returncode, rendered.stderr
    kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", text=rendered.stdout)


@pytest.mark.parametrize(("setting", "word"), WRONG)
def test_wrong_values_are_refused(setting: str, word: str) -> None:
    """By the schema, with the value's name."""
    rendered = _render(setting)
    assert rendered.returncode
    assert word in rendered.stderr
