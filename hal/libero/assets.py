"""Where LIBERO's meshes, textures and scene XMLs come from, and its config file."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from tactus.hal.libero.primitive.pack import COVERED_SUITES, PACK_VERSION, write_pack
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
    folder = Path(path).expanduser().resolve()
    missing = [name for name in FOLDERS if not (folder / name).is_dir()]
    if missing:
        raise SpecError(
            f"{source}={path} is not a LIBERO assets folder: it has no {', '.join(missing)}; "
            "accepted: auto, hub, primitive, or the path of LIBERO's assets folder"
        )
    return Assets("directory", folder, source)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()


def _hub() -> Assets:
    """The copy LIBERO's own downloader keeps, or a download within HUB_TIMEOUT_S of reaching the hub."""
    folder = Path("~/.cache/libero/assets").expanduser()
    if all((folder / name).is_dir() for name in FOLDERS):
        return Assets("hub", folder, "cached copy")
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise SpecError("no cached copy of LIBERO's assets, and HF_HUB_OFFLINE is set")
    from huggingface_hub import HfApi
    from huggingface_hub.constants import ENDPOINT

    write_config()
    from libero.libero.utils import download_utils

    try:
        HfApi().repo_info(download_utils.HF_ASSETS_REPO_ID, repo_type="dataset", timeout=HUB_TIMEOUT_S)
        download_utils.download_assets_from_huggingface()
    except Exception as error:
        reason = f"{ENDPOINT} does not give them ({type(error).__name__})"
        raise SpecError(f"no cached copy of LIBERO's assets, and {reason}") from error
    return _directory(str(folder), "downloaded from the hub")


def _primitive(suite: str, why: str) -> Assets:
    if suite not in COVERED_SUITES:
        raise SpecError(
            f"primitive assets cover {', '.join(COVERED_SUITES)}, not {suite}: "
            "set $LIBERO_ASSETS to a copy of LIBERO's assets folder, or let the hub be reached"
        )
    folder = _cache() / "tactus" / f"libero_primitive_{PACK_VERSION}"
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
    return Assets("primitive", folder, why)


def write_config() -> None:
    """Point LIBERO at a config file that exists: without one its first import asks on the terminal."""
    if "libero.libero" in sys.modules:
        return
    own = Path(os.environ.get("LIBERO_CONFIG_PATH", "~/.libero")).expanduser()
    if (own / "config.yaml").is_file():
        return
    spec = importlib.util.find_spec("libero")
    if spec is None or not spec.submodule_search_locations:
        raise SpecError("LIBERO is not installed: pip install 'tactus[libero]'")
    root = Path(next(iter(spec.submodule_search_locations))) / "libero"
    places = {
        "benchmark_root": root,
        "bddl_files": root / "bddl_files",
        "init_states": root / "init_files",
        "datasets": root.parent / "datasets",
        "assets": root / "assets",
    }
    text = yaml.safe_dump({key: str(place) for key, place in places.items()})
    if "LIBERO_CONFIG_PATH" not in os.environ:
        own = _cache() / "tactus" / "libero_config"
        os.environ["LIBERO_CONFIG_PATH"] = str(own)
    own.mkdir(parents=True, exist_ok=True)
    file = own / "config.yaml"
    if not file.is_file() or file.read_text() != text:
        scratch = own / f"config.{os.getpid()}.yaml"
        scratch.write_text(text)
        scratch.rename(file)


def use(assets: Assets) -> None:
    """Make this process's LIBERO read `assets`. One folder per process: LIBERO keeps it in a global."""
    import libero.libero as libero

    present = libero._assets_path_cache
    if present is not None and Path(present) != assets.path:
        raise SpecError(f"this process already uses LIBERO assets from {present}; start another one for {assets.path}")
    libero._assets_path_cache = str(assets.path)
