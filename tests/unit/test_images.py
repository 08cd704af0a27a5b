"""What the Dockerfile and Compose make of us: nothing unpinned, no tools, no port too many."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
FINAL = ("controller", "operator", "api")
TOOLS = re.compile(
    r"\b(apt-get|apt|apk|dnf|pip|uv|gcc|g\+\+|make|build-essential|curl|wget|git)\b|python3?-dev"
)
PIP_INSTALL = re.compile(r"\bpip\b[^&]*\b(?:install|wheel)\b[^&]*")


class Stage(NamedTuple):
    """A stage of the Dockerfile and its instructions, each on one line."""

    base: str
    lines: list[str]

    def having(self, instruction: str) -> list[str]:
        """What stands behind each such instruction."""
        return [
            line.removeprefix(f"{instruction} ")
            for line in self.lines
            if line.startswith(f"{instruction} ")
        ]


def _stages() -> dict[str, Stage]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, Stage] = {}
    for line in text.splitlines():
        if line.startswith("FROM "):
            _, base, _, name = line.split()
            found[name] = Stage(base, [])
        elif found and line.strip() and not line.startswith("#"):
            found[list(found)[-1]].lines.append(" ".join(line.split()))
    return found


def test_no_build_tools_go_in() -> None:
    """Of the stage that builds only the finished environment, without pip, is kept.

    What comes after installs nothing, takes out the base's own pip, and runs without rights.
    """
    stages = _stages()
    assert {stages[name].base for name in FINAL} == {"app"}
    app = stages["app"]
    assert app.base == "python"
    assert app.having("COPY") == ["--from=build /opt/shardcluster /opt/shardcluster"]
    assert any("venv --without-pip /opt/shardcluster" in run for run in stages["build"].lines)
    (run,) = app.having("RUN")
    removed, _, rest = run.partition(" && ")
    assert removed.startswith("rm -rf ")
    for prefix, packages in (
        ("/usr", "3/dist"),
        ("/usr/local", "3*/site"),
    ):  # Debian's, python.org's
        assert f"{prefix}/bin/pip*" in removed
        assert f"{prefix}/lib/python3*/ensurepip" in removed
        assert f"{prefix}/lib/python{packages}-packages/pip*" in removed
    assert not TOOLS.search(rest)
    assert app.having("USER") == ["10001:10001"]
    for name in FINAL:
        assert not stages[name].having("RUN")
        assert not stages[name].having("COPY")
        assert not stages[name].having("USER")
    # The base gets a Python where it has none, without what would only suit a build.
    (run,) = stages["python"].having("RUN")
    assert "--no-install-recommends python3 " in run


def test_only_what_is_pinned_goes_in() -> None:
    """Every package by hash; our own wheel is built without fetching anything."""
    runs = [run for stage in _stages().values() for run in stage.having("RUN")]
    installs = [found.group() for run in runs for found in PIP_INSTALL.finditer(run)]
    assert len(installs) == 4
    for one in installs:
        assert "--require-hashes -r requirements/" in one or "--no-deps" in one, one
        assert "wheel" not in one or "--no-build-isolation" in one or "/wheels/*.whl" in one, one


def test_compose_publishes_the_gateway_alone() -> None:
    """On this machine only; nodes and controller are on the store's own network."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    published = {name: one["ports"] for name, one in services.items() if "ports" in one}
    assert list(published) == ["api"]
    assert all(port.startswith("127.0.0.1:") for port in published["api"])
    assert not any("network_mode" in one for one in services.values())
    for one in services.values():
        assert one["cap_drop"] == ["ALL"]
        assert one["read_only"]
