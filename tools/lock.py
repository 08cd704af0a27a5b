"""Pins every dependency, with hashes, for all Pythons and platforms at once.

`requirements/dev.txt` is resolved first and constrains the others, so one version of a package
serves everywhere.  A lock names no package index: where packages come from is the machine's own
setting.  `--check` resolves nothing; it looks whether the locks still fit pyproject.toml.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
# lock -> what of pyproject.toml goes in
LOCKS = {
    "dev": ["--extra=api", "--extra=kubernetes", "--extra=local", "--group=build", "--group=dev"],
    "run": ["--extra=api", "--extra=local", "--group=build"],
    "image": ["--extra=api", "--extra=kubernetes"],  # the nodes' containers bring their own server
    "build": ["--group=build"],
    "sbom": ["--group=sbom"],
}
HEADER = "# Made by `make lock`; don't edit.\n"
ADDRESS = re.compile(r"://|--(?:extra-)?index-url|--find-links|--trusted-host")
PINNED = re.compile(r"^([a-z0-9][a-z0-9.-]*)(?:\[[^]]*\])?==", re.MULTILINE)
REQUIRED_NAME = re.compile(r"[A-Za-z0-9._-]+")


def main() -> None:
    """Write the locks, or check them."""
    arguments = argparse.ArgumentParser(description="Pin the dependencies, with hashes.")
    arguments.add_argument("--check", action="store_true", help="only look whether they fit")
    if not arguments.parse_args().check:
        for name, selection in LOCKS.items():
            _write(name, selection)
    faults = [fault for name, selection in LOCKS.items() for fault in _faults(name, selection)]
    if faults:
        sys.exit("\n".join(faults))


def _write(name: str, selection: list[str]) -> None:
    constraints = [] if name == "dev" else ["--constraint=requirements/dev.txt"]
    options = ["--universal", "--generate-hashes", "--no-header", "--no-annotate", "--upgrade"]
    # What is required as `name[extra]` is pinned so, too: pip 23 takes no other pin for it.
    options += ["--no-strip-extras"]
    no_addresses = ["--no-emit-index-url", "--no-emit-find-links"]
    done = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "pyproject.toml",
         *options, *no_addresses, *constraints, *selection],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    (REQUIREMENTS / f"{name}.txt").write_text(HEADER + done.stdout, encoding="utf-8")


def _faults(name: str, selection: list[str]) -> list[str]:
    text = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8")
    faults = []
    if ADDRESS.search(text):
        faults.append(f"requirements/{name}.txt names an address; run `make lock`.")
    missing = _wanted(selection) - set(PINNED.findall(text))
    if missing:
        names = ", ".join(sorted(missing))
        faults.append(f"requirements/{name}.txt lacks {names}; run `make lock`.")
    return faults


def _wanted(selection: list[str]) -> set[str]:
    """The names that pyproject.toml asks for directly."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = list(document["project"]["dependencies"])
    for option in selection:
        kind, _, group = option.removeprefix("--").partition("=")
        if kind == "extra":
            asked += document["project"]["optional-dependencies"][group]
        else:
            asked += document["dependency-groups"][group]
    names = (REQUIRED_NAME.match(line) for line in asked)
    return {found.group().lower().replace("_", "-") for found in names if found}


if __name__ == "__main__":
    main()
