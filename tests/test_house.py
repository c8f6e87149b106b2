"""The shape of the house: what may import what, and how light the robot side is."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "lerobot", "gymnasium", "mujoco", "robosuite", "libero", "rerun", "mcap", "prometheus_client")


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.split(".")[0] in ("hal", "policies", "runtime")}


@pytest.mark.parametrize("file", sorted((ROOT / "hal").rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_hal_imports_nothing_above_it(file: Path) -> None:
    assert all(name.split(".")[0] == "hal" for name in imports(file))


@pytest.mark.parametrize("file", sorted((ROOT / "policies").rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_policies_know_only_the_vocabulary_of_hal(file: Path) -> None:
    for name in imports(file):
        assert name.startswith(("policies", "hal.spec")), name


BELOW = sorted(file for file in (ROOT / "runtime").rglob("*.py") if "commands" not in file.parts)


@pytest.mark.parametrize("file", BELOW, ids=lambda f: str(f.relative_to(ROOT)))
def test_nothing_imports_the_commands(file: Path) -> None:
    assert not any(name.startswith("runtime.commands") for name in imports(file))


def test_importing_the_robot_side_loads_nothing_heavy() -> None:
    """Every module of runtime and hal but the simulators' own; a robot node needs no torch."""
    modules = [f"runtime.{file.stem}" for file in (ROOT / "runtime").glob("*.py")]
    modules += [f"runtime.flight.{file.stem}" for file in (ROOT / "runtime" / "flight").glob("*.py")]
    modules += [f"runtime.commands.{file.stem}" for file in (ROOT / "runtime" / "commands").glob("[!_]*.py")]
    modules += [f"hal.{file.stem}" for file in (ROOT / "hal").glob("*.py")] + ["policies.builtin"]
    code = "import sys, " + ", ".join(m.removesuffix(".__init__") for m in modules)
    code += f"\nprint([m for m in {HEAVY} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
