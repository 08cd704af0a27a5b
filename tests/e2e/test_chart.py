"""The chart, rendered with several sets of values, checked by kubeconform and a real API server."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.e2e.installed import ROOT
from tests.e2e.kube import kubectl
from tests.e2e.schemas import LOCATION, write_schemas

if TYPE_CHECKING:
    from pathlib import Path

CHART = str(ROOT / "charts" / "shardcluster")
VALUES: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "one namespace": ("watchNamespaces={default}",),
    "with a store": ("cluster.create=true", "cluster.spec.shards=5"),
    "watched": ("metrics.dashboard.enabled=true", "metrics.podAnnotations=false"),
    "placed": (
        "replicas=1", "nodeSelector.disk=ssd", "tolerations[0].operator=Exists",
        "imagePullSecrets[0].name=login", "image.tag=1.2.3", "gatewayImage.repository=mirror/api",
    ),
}  # fmt: skip
WRONG = (
    ("replicas=none", "replicas"),
    ("watchNamespaces=default", "watchNamespaces"),
    ("image.tagg=1", "tagg"),
    ("metrics.serviceMonitor.interval=x", "interval"),
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


def _conforms(folder: Path, manifests: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["kubeconform", "-strict", "-summary", "-verbose",
         "-schema-location", f"{folder}/{LOCATION}", "-"],
        input=manifests, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_it_conforms_to_the_published_schemas(operator: str, tmp_path: Path) -> None:
    """For every set of values; a field that no schema knows is found."""
    assert operator
    write_schemas(tmp_path)
    for settings in VALUES.values():
        checked = _conforms(tmp_path, _render(*settings).stdout)
        assert not checked.returncode, checked.stdout + checked.stderr
        assert "Skipped: 0" in checked.stdout
    wrong = _render().stdout.replace("replicas: 2", "replicass: 2")
    assert "replicass" in _conforms(tmp_path, wrong).stdout
