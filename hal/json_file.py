"""Reads text and JSON that somebody may have cut, emptied, replaced or not yet fetched: what is wrong is a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

POINTER = b"version https://git-lfs"
"""What a file begins with in whose place Git LFS has left a note."""
FETCH = "a Git LFS pointer: `git lfs pull` fetches what it stands for"

NAMES: dict[type, str] = {dict: "keys and values, {…}", list: "a list, […]"}


def is_pointer(path: Path) -> bool:
    """Whether Git LFS has yet to fetch the file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(POINTER)) == POINTER


def read_json[T](path: Path, kind: type[T]) -> T:
    """Raises ValueError that says, without the path, why this is no JSON of that kind (dict, list)."""
    found = parse_json(read_text(path))
    if not isinstance(found, kind):
        raise ValueError(f"found {NAMES.get(type(found), 'one value')}, expected {NAMES[kind]}")
    return found


def read_text(path: Path) -> str:
    """Raises ValueError that says, without the path, why there is no text to read."""
    try:
        if is_pointer(path):
            raise ValueError(FETCH)
        return path.read_text()
    except UnicodeDecodeError:
        raise ValueError("it is no text") from None
    except OSError as error:
        raise ValueError(error.strerror) from error


def parse_json(text: str) -> Any:
    """Raises ValueError, and nothing else."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("brackets in brackets without end") from None
    except ValueError as error:
        raise ValueError("it is empty" if not text.strip() else f"no JSON: {error}") from error
