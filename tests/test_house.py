"""The shape of the house: what may import what, that no imports go in a circle, and how light the robot side is."""

from __future__ import annotations

import ast
import graphlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "lerobot", "gymnasium", "mujoco", "robosuite", "libero", "rerun", "mcap", "prometheus_client")
FILES = sorted(file for room in ("hal", "policies", "runtime") for file in (ROOT / room).rglob("*.py"))
MODULES = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in FILES}


class Imports(ast.NodeVisitor):
    """Modules of ours that a file imports, wherever in it, for a type checker too."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        names = {f"{node.module}.{alias.name}" for alias in node.names}
        modules = {name for name in names if name.removeprefix("tactus.") in MODULES}
        self.found |= modules | ({str(node.module)} if names - modules else set())


def imports(file: Path) -> set[str]:
    """Modules of ours, by their place below `tactus`."""
    seen = Imports()
    seen.visit(ast.parse(file.read_text()))
    bare = {name for name in seen.found if name.split(".")[0] in ("hal", "policies", "runtime")}
    assert not bare, f"{file}: import tactus.{bare.pop()}: nothing of that name is installed"
    return {name.removeprefix("tactus.") for name in seen.found if name.startswith("tactus.")}


GRAPH = {module: imports(file) - {module} for module, file in MODULES.items()}


@pytest.mark.parametrize("module", GRAPH)
def test_imports_only_go_down(module: str) -> None:
    room = module.split(".")[0]
    allowed = {"hal": ("hal",), "policies": ("policies", *VOCABULARY), "runtime": ("runtime", "policies", "hal")}[room]
    for name in GRAPH[module]:
        assert name.startswith(allowed), name
        assert module.startswith("runtime.commands") or not name.startswith("runtime.commands"), name


VOCABULARY = ("hal.spec", "hal.config", "hal.json_file")
"""All that policies know of hal: what observations and actions are, what configs are made of, how files are read."""


def test_no_imports_go_in_a_circle() -> None:
    graphlib.TopologicalSorter(GRAPH).prepare()


def test_no_rooms_need_each_other() -> None:
    """A room is a folder of runtime/; modules that lie beside the rooms are rooms of their own."""
    rooms: dict[str, set[str]] = {}
    for module, needed in GRAPH.items():
        if module.startswith("runtime."):
            room = module.split(".")[1]
            rooms.setdefault(room, set()).update(n.split(".")[1] for n in needed if n.startswith("runtime."))
    graphlib.TopologicalSorter({room: needed - {room} for room, needed in rooms.items()}).prepare()


@pytest.mark.slow
def test_importing_the_robot_side_loads_nothing_heavy(tmp_path: Path) -> None:
    """Every module but those that are for one of the heavy packages; a robot node needs no torch."""
    heavy = ("hal.gym.", "hal.libero.", "hal.robosuite.", "hal.lerobot.", "hal.twin.", "policies.", "runtime.view.")
    heavy += (
        "runtime.metrics.",
        "runtime.page.foxglove_server",
        "runtime.page.server",
        "runtime.distillation.",
        "runtime.training.",
        "runtime.lerobot_policy.",
        *(f"runtime.rl.{module}" for module in ("practice", "report", "figures", "memory_probe", "policy_process")),
        "runtime.lab.",
        "runtime.flight.mcap_file",
        "runtime.diagnosis.stage_swap",
    )
    light = [module for module in MODULES if not module.startswith(heavy)]
    code = "import sys, " + ", ".join(f"tactus.{module}" for module in [*light, "policies.builtin"])
    code += f"\nprint([m for m in {HEAVY} if m in sys.modules])"
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=here, capture_output=True, text=True)
    assert out.stdout.strip() == "[]", out.stdout + out.stderr
