"""Writes build/sbom.json: what the images contain, as a CycloneDX document.

The packages of requirements/image.txt are installed, with their hashes, into an environment of
their own, as the Dockerfile does, and cyclonedx-py tells what is there.  The base image is added by
its name: what it holds is known only once it was chosen.  Fails when a licence is not allowed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.licences import refused

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
OUTPUT = BUILD / "sbom.json"
BASE_IMAGE = re.compile(r"^ARG BASE_IMAGE=(.+):(.+)$", re.MULTILINE)


def main() -> None:
    """Write it, and look at the licences."""
    image = _environment("image")
    tool = _environment("sbom")
    subprocess.run(
        [tool.parent / "cyclonedx-py", "environment", "--pyproject", ROOT / "pyproject.toml",
         "--output-reproducible", "--short-PURLs", "--of", "JSON", "-o", OUTPUT, image],
        check=True, cwd=ROOT,
    )  # fmt: skip
    document = json.loads(OUTPUT.read_text(encoding="utf-8"))
    document["components"].append(_base_image())
    OUTPUT.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    faults = [
        f"{component['name']} {component['version']}: {licence}"
        for component in document["components"]
        if component["type"] == "library"
        for licence in refused(_licences(component))
    ]
    if faults:
        sys.exit("These licences are not on the list in tools/licences.py:\n" + "\n".join(faults))
    print(f"{OUTPUT.relative_to(ROOT)}: {len(document['components'])} components")


def _environment(lock: str) -> Path:
    """The Python of an environment with just what the lock names."""
    folder = BUILD / f"sbom-{lock}"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--clear", folder], check=True, cwd=ROOT)
    python = folder / "bin" / "python"
    subprocess.run(
        [*uv, "pip", "install", "--quiet", "--python", python, "--require-hashes",
         "-r", ROOT / "requirements" / f"{lock}.txt"],
        check=True, cwd=ROOT,
    )  # fmt: skip
    return python


def _licences(component: dict[str, Any]) -> list[str]:
    """Its SPDX words; other texts of the same package only where it has none."""
    told = component.get("licenses", [])
    words = [one["expression"] for one in told if "expression" in one]
    words += [one["license"]["id"] for one in told if "id" in one.get("license", {})]
    return words or [one["license"]["name"] for one in told]


def _base_image() -> dict[str, str]:
    found = BASE_IMAGE.search((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert found is not None, "the Dockerfile names a base image"
    name, version = found.groups()
    return {
        "type": "container",
        "bom-ref": f"base-image-{name}",
        "name": name,
        "version": version,
        "description": "The base of the images, unless BASE_IMAGE names another; not looked into.",
    }


if __name__ == "__main__":
    main()
