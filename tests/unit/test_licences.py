"""Licences of what we ship: each is on a list that people made."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest

from tools.licences import ALLOWED, is_allowed, licences_of, refused

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"
# A pin, and the marker of the platforms that it is for.
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==[^ ]+(?: ; (.*?))? \\$", re.MULTILINE)


@pytest.mark.parametrize("lock", ["image", "run"])
def test_licences_of_what_runs_are_allowed(lock: str) -> None:
    """Of each package that the lock names; all are here, but those of other platforms."""
    pins = PIN.findall((REQUIREMENTS / f"{lock}.txt").read_text(encoding="utf-8"))
    assert len(pins) > 20
    faults = []
    for name, marker in pins:
        try:
            said = metadata(name)
        except PackageNotFoundError:
            assert marker, f"{name} is not installed"
            continue
        faults += [f"{name}: {licence}" for licence in refused(licences_of(said))]
    assert not faults


@pytest.mark.parametrize(
    "expression",
    [
        *ALLOWED,
        "Apache-2.0 AND MIT",
        "GPL-3.0-only OR MIT",
        "License :: OSI Approved :: BSD License",
        "Apache 2.0",
    ],
)
def test_what_is_allowed(expression: str) -> None:
    """By SPDX's name, by a choice that leaves one, and by the names that packages use."""
    assert is_allowed(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "GPL-3.0-only",
        "MIT AND GPL-3.0-only",
        "AGPL-3.0-or-later OR SSPL-1.0",
        "(MIT)",
        "Proprietary",
        "License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
    ],
)
def test_what_is_not_on_the_list_is_refused(expression: str) -> None:
    """Also what nobody has heard of."""
    assert refused([expression]) == [expression]


def test_a_package_that_names_none_is_refused() -> None:
    """It may not be shipped at all."""
    assert refused([]) == ["no licence at all"]
