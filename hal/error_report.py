"""What somebody else's code raised, as a sentence; its traceback goes to a file that the sentence names."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import traceback

LONGEST = 400
"""Characters of somebody else's message that are worth repeating."""
MOST_FILES = 50
"""Tracebacks that one process writes: whoever raises another error at each tick fills no disk."""
RENDERING = re.compile(r"\bGLX?\b|EGL|GLFW|glad|OpenGL|OSMesa|MUJOCO_GL|framebuffer", re.IGNORECASE)

_files: dict[tuple[object, ...], str] = {}


def describe(error: BaseException) -> str:
    """`ZeroDivisionError: division by zero; traceback: FILE`, on one line; with what to do about it, if that is known.

    The same error raised at the same place again has the file that it had before.
    """
    text = " ".join(str(error).split())
    text = f"{text[:LONGEST]} …" if len(text) > LONGEST else text
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{said}{_advice(error, text)}; traceback: {_file(error)}"


def _advice(error: BaseException, text: str) -> str:
    if isinstance(error, PermissionError) and error.filename:
        return "; remove that file, or have its owner let you write it"
    if RENDERING.search(text) or any(RENDERING.search(file) for file, _ in _places(error)[-1:]):
        keys = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "MUJOCO_EGL_DEVICE_ID", "DISPLAY")
        found = ", ".join(f"{key}={os.environ[key]}" for key in keys if key in os.environ) or "nothing"
        return f"; for rendering the environment has {found}; usual without a screen: MUJOCO_GL=egl, or osmesa"
    return ""


def interrupted(error: BaseException | None) -> bool:
    """Whether an interrupt is what caused it: an extension module that is being loaded makes an ImportError of one."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


def anything_described() -> bool:
    """Whether this process has described an error before: what a destructor raises then is most often its echo."""
    return bool(_files)


def _places(error: BaseException) -> list[tuple[str, int]]:
    return [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]


def _file(error: BaseException) -> str:
    key = (type(error), *_places(error))
    if key not in _files:
        if len(_files) >= MOST_FILES:
            return f"not kept, this process has written {MOST_FILES}"
        _files[key] = _write(error)
    return _files[key]


def _write(error: BaseException) -> str:
    text = " ".join(sys.argv) + "\n\n" + "".join(traceback.format_exception(error))
    try:
        descriptor, name = tempfile.mkstemp(prefix="tactus-", suffix=".traceback.txt")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as failed:
        return f"could not be written ({failed.strerror})"
    return name
