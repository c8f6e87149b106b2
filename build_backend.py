"""setuptools, and one thing it cannot say: that the wheel holds a plugin of LeRobot's.

LeRobot imports what is installed as a distribution whose name begins with `lerobot_policy_`. The wheel therefore brings
the metadata of one, as an .egg-info folder, beside the module of that name; both come and go with `pip install tactus`
and `pip uninstall tactus`, in an editable install too.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

PLUGIN = "lerobot_policy_tactus"


def build_wheel(directory: str, settings: Any = None, metadata: str | None = None) -> str:
    """As PEP 517 has it."""
    return _with_plugin(directory, build_meta.build_wheel(directory, settings, metadata))


def build_editable(directory: str, settings: Any = None, metadata: str | None = None) -> str:
    """As PEP 660 has it."""
    return _with_plugin(directory, build_meta.build_editable(directory, settings, metadata))


def _with_plugin(directory: str, name: str) -> str:
    """Writes the wheel once more, with the plugin's metadata."""
    path = Path(directory) / name
    version = name.split("-")[1]
    about = f"Metadata-Version: 2.1\nName: {PLUGIN}\nVersion: {version}\nSummary: --policy.type=tactus for LeRobot\n"
    added = f"{PLUGIN}-{version}.egg-info/PKG-INFO"
    digest = base64.urlsafe_b64encode(hashlib.sha256(about.encode()).digest()).rstrip(b"=").decode()
    whole = path.with_suffix(".whole")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                content += f"{added},sha256={digest},{len(about)}\n".encode()
            new.writestr(entry, content)
        new.writestr(added, about)
    whole.replace(path)
    return name
