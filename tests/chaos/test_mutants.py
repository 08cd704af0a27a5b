"""The checker is proved: every planted bug is found, by rounds that the real `decide` passes."""

from __future__ import annotations

import pytest

from tests.chaos.mutants import MUTANTS
from tests.chaos.nemesis import schedule
from tests.chaos.run import play


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    """In the rounds that stand beside it, by one that nothing else breaks."""
    plot, seeds = MUTANTS[name]
    for seed in seeds:
        if play(schedule(seed), plot).violations and not play(schedule(seed)).violations:
            return
    pytest.fail(f"not found in {len(seeds)} rounds")
