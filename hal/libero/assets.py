"""Where LIBERO's meshes, textures and scene XMLs come from."""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tactus.hal.libero.package import load, parser
from tactus.hal.libero.primitive.pack import COVERED_SUITES, PACK_VERSION, write_pack
from tactus.hal.libero.primitive.panda import LOOKS, wear
from tactus.hal.provenance import digest, files_below
from tactus.hal.spec import SpecError

HUB_TIMEOUT_S = 10.0
FOLDERS = ("articulated_objects", "scenes", "stable_hope_objects", "stable_scanned_objects", "textures")


@dataclass(frozen=True)
class Assets:
    """The assets in use. kind: "directory", "hub" or "primitive"; path: the folder; why: one line for the user."""

    kind: str
    path: Path
    why: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.why})"

    @cached_property
    def content(self) -> str:
        """Of every file in it, 0.15 s for LIBERO's 140 MB; raises SpecError if one cannot be read."""
        try:
            return digest(files_below(self.path))
        except OSError as error:
            raise SpecError(f"{error.filename} of LIBERO's assets cannot be read: {error.strerror}") from error


def resolve(choice: str, suite: str) -> Assets:
    """Turn `--robot.assets` into a folder.

    auto: $LIBERO_ASSETS, else the hub's copy, else primitive. hub, primitive and a path take just that.
    Raises SpecError when the one that was asked for cannot be had.
    """
    if choice == "auto":
        given = os.environ.get("LIBERO_ASSETS")
        if given:
            return _directory(given, "$LIBERO_ASSETS")
        try:
            return _hub()
        except SpecError as error:
            return _primitive(suite, f"generated, because {error}")
    if choice == "hub":
        return _hub()
    if choice == "primitive":
        return _primitive(suite, "generated, as asked")
    return _directory(choice, "robot.assets")


def _directory(path: str, source: str) -> Assets:
    folder = Path(path).resolve()
    missing = [name for name in FOLDERS if not (folder / name).is_dir()]
    if missing:
        raise SpecError(
            f"{source}={path} is not a LIBERO assets folder: it has no {', '.join(missing)}; "
            "accepted: auto, hub, primitive, or the path of LIBERO's assets folder"
        )
    return Assets("directory", folder, source)


def _cache() -> Path:
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"))


def _hub() -> Assets:
    """The copy LIBERO's own downloader keeps, or a download within HUB_TIMEOUT_S of reaching the hub."""
    folder = Path(os.path.expanduser("~/.cache/libero/assets"))
    if all((folder / name).is_dir() for name in FOLDERS):
        return Assets("hub", folder, "cached copy")
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise SpecError("no cached copy of LIBERO's assets, and HF_HUB_OFFLINE is set")
    from huggingface_hub import HfApi
    from huggingface_hub.constants import ENDPOINT

    load()
    from libero.libero.utils import download_utils

    try:
        HfApi().repo_info(download_utils.HF_ASSETS_REPO_ID, repo_type="dataset", timeout=HUB_TIMEOUT_S)
        download_utils.download_assets_from_huggingface()
    except Exception as error:
        reason = f"{ENDPOINT} does not give them ({type(error).__name__})"
        raise SpecError(f"no cached copy of LIBERO's assets, and {reason}") from error
    return Assets("hub", _directory(str(folder), "the hub").path, "downloaded")


def _primitive(suite: str, why: str) -> Assets:
    if suite not in COVERED_SUITES:
        raise SpecError(
            f"primitive assets cover {', '.join(COVERED_SUITES)}, not {suite}: "
            "set $LIBERO_ASSETS to a copy of LIBERO's assets folder, or let the hub be reached"
        )
    name = f"libero_primitive_{PACK_VERSION}"
    try:
        folder = _written(_cache() / "tactus" / name)
    except OSError:  # a home that cannot be written; the bytes are the same wherever they lie
        try:
            scratch = tempfile.mkdtemp(prefix="tactus_")
            atexit.register(shutil.rmtree, scratch, ignore_errors=True)
            folder = _written(Path(scratch) / name)
        except OSError as error:
            raise SpecError(f"primitive assets cannot be written to {_cache()} nor to $TMPDIR: {error}") from error
    return Assets("primitive", folder, why)


def _written(folder: Path) -> Path:
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            pack = Path(scratch) / "pack"
            write_pack(pack)
            try:
                pack.rename(folder)
            except OSError:
                if not folder.is_dir():  # another process may have put the same pack there first
                    raise
    return folder


def use(assets: Assets) -> None:
    """Make this process's LIBERO read `assets`. One folder per process: LIBERO keeps it in a global."""
    libero = load()
    present = libero._assets_path_cache
    if present is not None and Path(present) != assets.path:
        raise SpecError(f"this process already uses LIBERO assets from {present}; start another one for {assets.path}")
    libero._assets_path_cache = str(assets.path)
    if (assets.path / LOOKS).is_dir() and present is None:
        parser()  # which imports robosuite
        wear(assets.path, importlib.import_module("robosuite.models.base").MujocoXML)
