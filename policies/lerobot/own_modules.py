"""Builds a LeRobot policy from the modules that its checkpoint names, without the rest of LeRobot.

Importing anything of `lerobot.policies` imports the networks of all its policies, and `lerobot.processor` imports
transformers and pandas: seconds, and a policy such as ACT needs none of them. What costs is packages whose `__init__`
hands on names of their modules. While a policy is built, such an `__init__` is put off, and a name asked of the package
comes from the module that the `__init__` says it comes from. The checkpoint's own package is run whole, any other as
soon as something is missing: its type, one of its processor steps, a name. LeRobot's modules are run as they are.

Afterwards nothing of this is left: a package that was put off is forgotten, so that its next import runs it.
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tactus.policies.lerobot.config import LeRobotConfig
from tactus.policies.lerobot.folder import CONFIG, POSTPROCESSOR, PREPROCESSOR

if TYPE_CHECKING:
    from tactus.policies.lerobot.policy import LeRobotPolicy

POLICIES, PROCESSOR = "lerobot.policies", "lerobot.processor"
PUT_OFF = (POLICIES, PROCESSOR, "lerobot.robots", "lerobot.teleoperators")
"""These, and every package in `lerobot.policies`."""
FACTORY = f"{POLICIES}.factory"
"""Functions that look a policy up by its type: who imports them later is to find all types."""


def build(config: LeRobotConfig) -> LeRobotPolicy:
    """What `LeRobotPolicy(config)` is. Raises CheckpointError for a checkpoint that cannot be used as it is."""
    with only_what_is_asked_for():
        from tactus.policies.lerobot.policy import LeRobotPolicy

        return LeRobotPolicy(config)


@contextmanager
def only_what_is_asked_for() -> Iterator[None]:
    """Within it, imports of LeRobot's packages run as little as they can. One thread may import meanwhile."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _forget()


def complete(folder: Path) -> None:
    """Import what registers the type and the processor steps of the checkpoint in `folder`, which is one: see
    folder.py. Without `only_what_is_asked_for` that has been imported already.
    """
    from lerobot.configs import PreTrainedConfig
    from lerobot.processor import ProcessorStepRegistry

    kind = json.loads((folder / CONFIG).read_bytes())["type"]
    if isinstance(kind, str) and kind.isidentifier() and find_spec(f"{POLICIES}.{kind}"):
        _run(importlib.import_module(f"{POLICIES}.{kind}"))
    if kind not in PreTrainedConfig.get_known_choices():
        _run(sys.modules.get(POLICIES))
    if kind in PreTrainedConfig.get_known_choices():  # its package may be called otherwise
        _run(sys.modules.get(PreTrainedConfig.get_choice_class(kind).__module__.rpartition(".")[0]))
    files = [json.loads((folder / name).read_bytes()) for name in (PREPROCESSOR, POSTPROCESSOR)]
    named = {str(step["registry_name"]) for file in files for step in file["steps"] if "registry_name" in step}
    if not named <= {*ProcessorStepRegistry.list()}:
        _run(sys.modules.get(PROCESSOR))
    if not named <= {*ProcessorStepRegistry.list()}:
        _run(sys.modules.get(POLICIES))
        for name in [name for name in sys.modules if name.startswith(f"{POLICIES}.")]:
            _run(sys.modules.get(name))


class _Package(ModuleType):
    """One whose `__init__` has not been run. Names that a module gave stand in it like any others."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        source = _sources(self).get(name)
        if source is None:
            _run(self)
            return getattr(self, name)
        value = getattr(importlib.import_module(source[0]), source[1])
        setattr(self, name, value)
        return value


def _sources(package: ModuleType) -> dict[str, tuple[str, str]]:
    """Which module, and what in it, each name of a package comes from, as its `__init__` imports it."""
    spec: Any = package.__spec__
    tree = ast.parse(spec.loader.loader.get_source(package.__name__))
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package.__name__)
            found |= {alias.asname or alias.name: (module, alias.name) for alias in node.names}
    return found


def _run(package: ModuleType | None) -> None:
    """Run a package's own `__init__`, if it was put off."""
    if package is None or type(package) is not _Package:
        return
    spec: Any = package.__spec__
    put_off = spec.loader
    package.__class__, package.__loader__, spec.loader = ModuleType, put_off.loader, put_off.loader
    try:
        put_off.loader.exec_module(package)
    except BaseException:
        package.__class__, package.__loader__, spec.loader = _Package, put_off, put_off
        raise


def _forget() -> None:
    put_off = [name for name, module in sys.modules.items() if type(module) is _Package]
    for name in [*put_off, *([FACTORY] if POLICIES in put_off else [])]:
        if name in sys.modules:
            parent, _, child = name.rpartition(".")
            if parent in sys.modules:
                vars(sys.modules[parent]).pop(child, None)
            del sys.modules[name]


class _Loader:
    """Makes a package and does not run it. loader: the package's own."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Package(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Finder:
    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        if name not in PUT_OFF and name.rpartition(".")[0] != POLICIES:
            return None
        spec: Any = PathFinder.find_spec(name, path)
        if spec is None or spec.submodule_search_locations is None:  # a plain module
            return None
        spec.loader = _Loader(spec.loader)
        return spec
