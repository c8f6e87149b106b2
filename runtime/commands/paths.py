"""Whether what a command is to write can be written: known before anything moves, for every path of every command."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from tactus.runtime.commands.keys import keys_of


def unwritable(config: Any) -> list[str]:
    """A sentence for each key of a command's config whose path cannot be written to."""
    found = []
    for key in keys_of(type(config)).values():
        given = getattr(config, key.name)
        path = given if given is not None or key.written is None else key.written.default
        if key.written is None or path is None or path in key.written.but:
            continue
        if why := why_not(Path(path), key.written.value):
            found.append(f"{key.name}: {path} cannot be written: {why}")
    return found


def why_not(path: Path, kind: Literal["file", "folder"]) -> str:
    """Why a file or folder cannot be written, made if need be; empty if it can. Leaves nothing behind."""
    try:
        if kind == "file" and path.exists():
            if path.is_dir():
                return "it is a folder"
            with path.open("ab"):
                return ""
        above = path if kind == "folder" else path.parent
        while not above.exists():
            above = above.parent
        if not above.is_dir():
            return f"{above} is a file" if above != path else "it is a file"
        with tempfile.TemporaryFile(dir=above) as probe:
            probe.write(bytes(os.sysconf("SC_PAGE_SIZE")))  # a full disk says so here
    except OSError as error:
        return str(error.strerror)
    return ""
