"""The import rules, kept by reading the syntax trees; and that importing does nothing else."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import armchair

ROOT = Path(armchair.__file__).parent

# A package may import those of smaller rank; `SIBLINGS` of one rank may import each other too.
RANKS = {
    "core": 0,
    "text": 1,
    "data": 1,
    "nn": 1,
    "diffusion": 1,
    "models": 2,
    "sampling": 3,
    "training": 4,
    "pipelines": 4,
    "evaluation": 4,
    "codec": 4,
    "recipes": 5,
    "serving": 5,
    "cli": 6,
}
SIBLINGS = {
    ("training", "pipelines"),  # a run ends in a bundle
    ("evaluation", "pipelines"),
}

# Of smaller rank, and yet nothing that these should know of.
STRANGERS = {("models", "data"), ("sampling", "data")}

FORBIDDEN = {
    "core": {"argparse"},
    "text": {"argparse", "torch.distributed"},
    "data": {"argparse", "torch.distributed"},
    "nn": {"PIL", "argparse", "torch.distributed"},
    "models": {"PIL", "argparse", "torch.distributed", "os"},
    "sampling": {"PIL", "argparse", "torch.distributed", "os"},
    "pipelines": {"fastapi", "argparse"},
}

RECIPE_NAMES = ("Config", "Recipe", "Schedule", "Error")


@dataclass(frozen=True)
class Import:
    """One imported module or name, and where."""

    file: Path
    module: str
    name: str | None

    @property
    def package(self) -> str | None:
        """The package under armchair that is imported."""
        parts = self.module.split(".")
        return parts[1] if parts[0] == "armchair" and len(parts) > 1 else None


FILES = sorted(ROOT.rglob("*.py"))
TREES = {file: ast.parse(file.read_text("utf-8")) for file in FILES}


def package_of(file: Path) -> str:
    return file.relative_to(ROOT).parts[0]


def imports(file: Path) -> Iterator[Import]:
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.Import):
            yield from (Import(file, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield from (Import(file, node.module or "", alias.name) for alias in node.names)


PACKAGED = [file for file in FILES if file.parent != ROOT]


@pytest.mark.parametrize("file", PACKAGED, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_downward(file: Path) -> None:
    own = package_of(file)
    for found in imports(file):
        package = found.package
        if package is None or package == own:
            continue
        downward = RANKS[package] < RANKS[own] or (own, package) in SIBLINGS
        allowed = downward and (own, package) not in STRANGERS
        assert allowed, f"{own} must not import {found.module}"


@pytest.mark.parametrize("package", FORBIDDEN)
def test_forbidden_imports(package: str) -> None:
    for file in PACKAGED:
        if package_of(file) != package:
            continue
        for found in imports(file):
            names = {found.module, f"{found.module}.{found.name}", found.module.split(".")[0]}
            assert not names & FORBIDDEN[package], f"{file} imports {found.module}"


def test_only_the_command_line_imports_the_command_line() -> None:
    for file in FILES:
        if package_of(file) not in ("cli", "__main__.py"):
            assert all(found.package != "cli" for found in imports(file)), file


def test_recipes_import_configurations_only() -> None:
    for file in PACKAGED:
        if package_of(file) == "recipes":
            for found in imports(file):
                if found.package not in (None, "recipes"):
                    assert found.name is not None
                    assert found.name.endswith(RECIPE_NAMES), f"{file} imports {found.name}"


def test_only_one_place_changes_pixel_ranges() -> None:
    for file, tree in TREES.items():
        if file == ROOT / "core" / "images.py":
            continue
        constants = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert 127.5 not in constants, file


def test_nothing_happens_at_import_by_the_look_of_it() -> None:
    """At the top of a file nothing is called for its effect alone."""
    for file in PACKAGED:
        for node in TREES[file].body:
            if isinstance(node, ast.Expr):
                assert isinstance(node.value, ast.Constant), f"{file}:{node.lineno}"
            if isinstance(node, ast.If):
                guards = ("TYPE_CHECKING", "__name__ == '__main__'")
                assert ast.unparse(node.test) in guards, f"{file}:{node.lineno}"
            loops = (ast.For, ast.While, ast.With, ast.Delete, ast.Global)
            assert not isinstance(node, loops), f"{file}:{node.lineno}"


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_is_quick(tmp_path: Path) -> None:
    heavy = ("torch", "numpy", "PIL", "tokenizers", "safetensors", "tyro", "rich", "matplotlib")
    code = f"import sys, armchair; print(sorted(set({heavy}) & set(sys.modules)))"
    assert run(code, tmp_path) == "[]\n"


IMPORT_EVERYTHING = """
import importlib, logging, os, signal, sys, threading, warnings
import numpy, torch
numpy.random.seed(0), torch.manual_seed(0)

def state():
    return {
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "filters": [str(line) for line in warnings.filters],
        "logging": (logging.root.level, list(logging.root.handlers)),
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "flushing": float(torch.tensor([1e-40]) * 1),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "python threads": threading.active_count(),
        "ctrl-c": signal.getsignal(signal.SIGINT),
        "torch draws": torch.get_rng_state().tolist(),
        "numpy draws": numpy.random.get_state()[1].tolist(),
    }

from PIL import Image  # noqa: other people's side effects come first
import rich, tokenizers, tyro
before = state()
for name in sys.argv[1:] or MODULES:
    importlib.import_module(name)
after = state()
print([key for key in before if before[key] != after[key]])
"""


def test_importing_everything_changes_nothing(tmp_path: Path) -> None:
    modules = [
        ".".join(("armchair", *file.relative_to(ROOT).with_suffix("").parts))
        for file in FILES
        if file.name != "__main__.py"
    ]
    names = [name.removesuffix(".__init__") for name in modules]
    assert run(IMPORT_EVERYTHING.replace("MODULES", repr(names)), tmp_path) == "[]\n"
    assert list(tmp_path.iterdir()) == []
