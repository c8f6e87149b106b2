"""The installed LIBERO: imported without its question, and the task files that a suite is made of.

LIBERO takes the folders of its task files and initial states from `~/.libero/config.yaml`, or from
`$LIBERO_CONFIG_PATH/config.yaml`; its first import asks for one on the terminal and writes it. Whoever has, or had,
another LIBERO so gets that one's tasks under these names. Here no such file is read or written: the files are those
of the installed package, or of the folder that robot.task_files names.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tactus.hal.provenance import code
from tactus.hal.spec import SpecError

PACKAGED = "packaged"
KEYS = {"bddl_files": "bddl_files", "init_states": "init_files"}
"""Keys of LIBERO's config file, and what it calls the folders beside each other."""


@dataclass(frozen=True)
class TaskFiles:
    """Where the BDDL files and the initial states of all suites lie. source: `packaged`, or the user's folder."""

    source: str
    bddl_files: Path
    init_states: Path

    def of(self, folder: str, bddl: str, states: str) -> list[tuple[str, Path]]:
        """The two files of a task, by name: the BDDL file and its initial states."""
        return [(bddl, self.bddl_files / folder / bddl), (states, self.init_states / folder / states)]


def task_files(choice: str = PACKAGED) -> TaskFiles:
    """choice: robot.task_files. Raises SpecError if it is a folder without LIBERO's two."""
    root = _root() if choice == PACKAGED else Path(os.path.abspath(choice))
    found = TaskFiles(choice if choice == PACKAGED else str(root), *(root / name for name in KEYS.values()))
    missing = [place.name for place in (found.bddl_files, found.init_states) if not place.is_dir()]
    if missing and choice == PACKAGED:
        raise SpecError(f"the LIBERO in {root} has no {' and no '.join(missing)}: install it again")
    if missing:
        raise SpecError(
            f"robot.task_files={choice} has no {' and no '.join(missing)}; accepted: {PACKAGED}, or a folder that has "
            "bddl_files and init_files"
        )
    return found


def load() -> Any:
    """The module libero.libero. Its config file is neither asked for, read nor written, here or later."""
    if "libero.libero" not in sys.modules:
        with _no_question(), contextlib.redirect_stdout(io.StringIO()):
            library: Any = importlib.import_module("libero.libero")
            helpers: Any = importlib.import_module("libero.libero.utils")  # which reads the file by itself
        library.get_libero_path = helpers.get_libero_path = _path_of
    return sys.modules["libero.libero"]


def parser() -> Any:
    """The module that reads BDDL files, and with it robosuite, which writes /tmp/robosuite.log, or nowhere if that is
    another user's."""
    load()
    with forgiving_logs():
        return importlib.import_module("libero.libero.envs.bddl_utils")


@contextlib.contextmanager
def forgiving_logs() -> Iterator[None]:
    """A log file that cannot be opened for writing is none."""

    class Forgiving(logging.FileHandler):
        def __init__(self, filename: str, *arguments: Any, **keys: Any) -> None:
            try:
                super().__init__(filename, *arguments, **keys)
            except OSError:
                super().__init__(os.devnull)

    original, logging.FileHandler = logging.FileHandler, Forgiving
    try:
        yield
    finally:
        logging.FileHandler = original


def robosuite_code() -> str:
    """Content of the installed robosuite, and whether its loops are compiled: both decide bits."""
    from numba.core import config

    jit = ", without numba" if config.DISABLE_JIT else ""  # pyright: ignore[reportAttributeAccessIssue] - set by name
    return code("robosuite") + jit


def set_aside() -> tuple[Path, TaskFiles | str] | None:
    """The config file that LIBERO itself would read, and the task files it would have given, or why it gives none.

    None if there is no such file.
    """
    file = Path(os.path.expanduser(os.environ.get("LIBERO_CONFIG_PATH") or "~/.libero"), "config.yaml")
    try:
        if not file.is_file():
            return (file, "is no file") if os.path.lexists(file) else None
        content = yaml.safe_load(file.read_text())
    except OSError as error:
        return file, f"cannot be read ({error.strerror})"
    except (yaml.YAMLError, ValueError, RecursionError):  # the second if it is no text, or holds an impossible date
        return file, "is not YAML"
    if not isinstance(content, dict):
        return file, "is empty" if content is None else f"holds a {type(content).__name__}, not keys"
    missing = [key for key in KEYS if not isinstance(content.get(key), str)]
    if missing:
        return file, f"names no folder under {' and '.join(missing)}"
    return file, TaskFiles(str(file), *(Path(content[key]) for key in KEYS))


def _root() -> Path:
    try:
        spec = importlib.util.find_spec("libero")
    except ValueError:  # a stand-in without a spec
        spec = None
    for place in (spec.submodule_search_locations if spec else None) or ():
        if (Path(place) / "libero" / "__init__.py").is_file():
            return Path(place) / "libero"
    raise SpecError("LIBERO is not installed: pip install 'tactus[libero]'")


def _path_of(key: str) -> str:
    """LIBERO's get_libero_path, of the installed package."""
    root = _root()
    return str({"benchmark_root": root, "datasets": root.parent / "datasets"}.get(key, root / KEYS.get(key, key)))


@contextlib.contextmanager
def _no_question() -> Iterator[None]:
    """LIBERO's import looks whether a config file exists: let it see one that is gone afterwards."""
    _root()
    before = os.environ.get("LIBERO_CONFIG_PATH")
    try:
        scratch = tempfile.TemporaryDirectory(prefix="tactus_libero_")
        Path(scratch.name, "config.yaml").touch()
    except OSError as error:
        raise SpecError(f"LIBERO's import needs a temporary folder, which $TMPDIR could name: {error}") from error
    with scratch as folder:
        os.environ["LIBERO_CONFIG_PATH"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["LIBERO_CONFIG_PATH"]
            else:
                os.environ["LIBERO_CONFIG_PATH"] = before
