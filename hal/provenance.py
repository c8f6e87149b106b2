"""What decides an episode besides the config, named by content: files, the code of a simulator, who draws its pictures.

A robot puts these texts into its spec's `details`; results keep them, and `--resume` compares them.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

CODE = (".py", ".xml", ".json", ".yaml", ".yml", ".toml")
"""What of a package is compared byte by byte; its meshes and libraries go with its version, which results hold too."""


def digest(files: Iterable[tuple[str, Path]]) -> str:
    """sha256 over (name, bytes) of every file, sorted by name: its first 12 digits. Raises OSError."""
    whole = hashlib.sha256()
    for name, file in sorted(files):
        with file.open("rb") as stream:
            whole.update(f"{name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\0".encode())
    return f"sha256 {whole.hexdigest()[:12]}"


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file, through links too, by its path from `folder`; nothing hidden, and nothing that Python compiled."""
    entered = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in entered:  # a link into a circle
            folders.clear()
            continue
        entered.add(real)
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        for name in files:
            if not name.startswith(".") and os.path.isfile(os.path.join(place, name)):  # a link may lead nowhere
                yield os.path.relpath(os.path.join(place, name), folder), Path(place, name)


@cache
def code(package: str) -> str:
    """Content of an importable package or module, which may be somebody's own checkout; its CODE files alone."""
    spec = sys.modules[package].__spec__ if package in sys.modules else importlib.util.find_spec(package)
    folders = [*(spec.submodule_search_locations or ())] if spec else []
    found = [file for folder in folders for file in files_below(Path(folder)) if file[1].suffix in CODE]
    if found:
        return digest(found)
    main = getattr(sys.modules.get(package), "__file__", None)  # of __main__, which has no spec
    origin = spec.origin if spec and spec.has_location else main
    return digest([(Path(origin).name, Path(origin))]) if origin and os.path.isfile(origin) else "not in a file"


def own_code(config: Any) -> dict[str, str]:
    """Content of the user's own packages that make a robot, its parts or a policy, by name; config: theirs."""
    if not is_dataclass(config):
        parts = config.values() if isinstance(config, Mapping) else config if isinstance(config, list | tuple) else ()
        return {name: content for part in parts for name, content in own_code(part).items()}
    modules = [type(config).__module__, getattr(config, "entry_point", "").partition(":")[0]]
    packages = {module.partition(".")[0] for module in modules} - {"tactus", ""}
    return {name: code(name) for name in sorted(packages)} | own_code([getattr(config, f.name) for f in fields(config)])


@cache
def renderer(make_context: Callable[[], Any]) -> str:
    """Which OpenGL a simulator's pictures come from, as `egl, llvmpipe (LLVM 15.0.6, 256 bits), 4.5 Mesa 22.3.6`.

    make_context: makes the simulator's own kind of context. A machine that cannot draw says so here; whether that
    matters shows when a picture is due.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if chosen not in ("egl", "osmesa"):
        return chosen or "not chosen"
    try:
        context = make_context()  # before OpenGL is imported: it chooses the platform
    except Exception as error:  # noqa: BLE001 - a driver's or a binding's, of any kind
        return f"{chosen}, which cannot draw here ({type(error).__name__})"
    try:
        from OpenGL import GL

        context.make_current()
        names = [GL.glGetString(name) for name in (GL.GL_RENDERER, GL.GL_VERSION)]
    finally:
        context.free()
    return ", ".join([chosen, *(name.decode(errors="replace") for name in names if name)])


def mujoco_context() -> Any:
    """What gymnasium's MuJoCo draws in; dm_control's goes by the same $MUJOCO_GL."""
    return importlib.import_module(f"mujoco.{os.environ['MUJOCO_GL'].lower()}").GLContext(16, 16)
