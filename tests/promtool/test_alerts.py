"""The alert rules by Prometheus' own tool.

Needs `promtool` on PATH, of any Prometheus since 2.50; a tier of its own (`pytest tests/promtool`),
because it comes with Prometheus and not with Python.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/rules.yaml"
STORIES = Path(__file__).with_name("alerts.yaml")


def _promtool(*arguments: str | Path) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert not done.returncode, said
    return said


def test_the_rules_are_well_formed() -> None:
    """Expressions, templates, names."""
    assert "SUCCESS" in _promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


def test_each_alert_fires_when_it_shall_and_not_else() -> None:
    """The stories in alerts.yaml."""
    assert "SUCCESS" in _promtool("test", "rules", STORIES)


def test_each_alert_has_a_story() -> None:
    """In which it fires."""
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    stories = STORIES.read_text("utf-8")
    for group in groups:
        for rule in group["rules"]:
            assert f'alertname="{rule["alert"]}"' in stories
