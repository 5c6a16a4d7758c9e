"""What the README promises."""

from __future__ import annotations

import re
from pathlib import Path

import armchair

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_its_folders_exist() -> None:
    tree = README.partition("src/armchair/\n")[2].partition("```")[0]
    for name in re.findall(r"^  (\w+)/", tree, flags=re.MULTILINE):
        assert (ROOT / "src" / "armchair" / name).is_dir(), name


def test_its_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_ci_runs_the_test_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_public_names_can_be_imported() -> None:
    for name in armchair.__all__:
        assert getattr(armchair, name) is not None
