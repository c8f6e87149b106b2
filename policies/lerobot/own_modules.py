"""Has a LeRobot policy built from the modules that its checkpoint names, without the rest of LeRobot.

Importing anything of `lerobot.policies` imports the networks of all its policies, and `lerobot.processor` imports
transformers and pandas: seconds, and a policy such as ACT needs none of them. What costs is packages whose `__init__`
hands on names of their modules. While a policy is built, such an `__init__` is put off, and a name asked of the package
comes from the module that the `__init__` says it comes from. The checkpoint's own package is run whole, any other as
soon as something is missing: its type, one of its processor steps, a name. LeRobot's modules are run as they are.

Afterwards a package that was put off counts as not imported: whoever imports it next has it run, in the same module.
Until then a finder stands in sys.meta_path for that; nothing of LeRobot is changed.
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
from typing import Any

from tactus.policies.lerobot.config import PLUGINS
from tactus.policies.lerobot.folder import CONFIG, POSTPROCESSOR, PREPROCESSOR

POLICIES, PROCESSOR = "lerobot.policies", "lerobot.processor"
PUT_OFF = (POLICIES, PROCESSOR, "lerobot.robots", "lerobot.teleoperators")
"""These, and every package in `lerobot.policies`."""
FACTORY = f"{POLICIES}.factory"
"""Functions that look a policy up by its type: who imports them later is to find all types."""


@contextmanager
def only_what_is_asked_for() -> Iterator[None]:
    """Within it, imports of LeRobot's packages run as little as they can. One thread may import meanwhile."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _later.take_over()


def complete(folder: Path) -> None:
    """Import what registers the type and the processor steps of the checkpoint in `folder`, which is one: see
    folder.py. Without `only_what_is_asked_for` that has been imported already.
    """
    from lerobot.configs import PreTrainedConfig
    from lerobot.processor import ProcessorStepRegistry

    kind = json.loads((folder / CONFIG).read_bytes())["type"]
    if kind in PLUGINS:
        for part in ("configuration", "processor"):
            importlib.import_module(f"{PLUGINS[kind]}.{part}_{kind}")
    elif isinstance(kind, str) and kind.isidentifier() and find_spec(f"{POLICIES}.{kind}"):
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
        if sys.modules.get(self.__name__) is not self:  # no policy is being built any more
            return getattr(importlib.import_module(self.__name__), name)
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
    module: Any = package
    put_off = module.__spec__.loader
    module.__class__, module.__loader__, module.__spec__.loader = ModuleType, put_off.loader, put_off.loader
    try:
        put_off.loader.exec_module(module)
    except BaseException:
        module.__class__, module.__loader__, module.__spec__.loader = _Package, put_off, put_off
        raise


class _Loader:
    """Makes a package, or has it that was put off before. loader: its own. later: whether it is run now."""

    def __init__(self, loader: Any, later: bool) -> None:
        self.loader = loader
        self._later = later

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _later.packages.get(spec.name) or _Package(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        if self._later:
            return
        _run(module)
        _later.is_run(module.__name__)


def _spec(name: str, path: Sequence[str] | None, later: bool) -> ModuleSpec | None:
    spec: Any = PathFinder.find_spec(name, path)
    if spec is None or spec.loader is None or spec.submodule_search_locations is None:  # no `__init__` to put off
        return None
    spec.loader = _Loader(spec.loader, later)
    return spec


class _Finder:
    """While a policy is built."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        wanted = name in PUT_OFF or name.rpartition(".")[0] == POLICIES
        return _spec(name, path, later=True) if wanted else None


class _Later:
    """Afterwards. packages: those that were put off and not run since."""

    def __init__(self) -> None:
        self.packages: dict[str, ModuleType] = {}

    def take_over(self) -> None:
        """Have what is still put off count as not imported."""
        found = {name: module for name, module in sys.modules.items() if type(module) is _Package}
        self.packages = {n: p for n, p in (self.packages | found).items() if type(p) is _Package}
        for name in [*found, *([FACTORY] if POLICIES in found else [])]:
            sys.modules.pop(name, None)  # it stays its parent's attribute, which `import a.b.c as d` goes through
        if self.packages and self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        return _spec(name, path, later=False) if name in self.packages else None

    def is_run(self, name: str) -> None:
        self.packages.pop(name, None)
        if name == POLICIES:  # it imports what is in them, which may be imported already, and so not them
            for other in [other for other in self.packages if other.startswith(f"{POLICIES}.")]:
                importlib.import_module(other)
        if not self.packages and self in sys.meta_path:
            sys.meta_path.remove(self)


_later = _Later()
