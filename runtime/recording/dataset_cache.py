"""Where Hugging Face's library puts the copy that it makes of every recording it reads.

Left to itself it keeps one in ~/.cache/huggingface/datasets for each recording, and one more for each change of it, and
removes none: tens of GB after some days of recording and training.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
from functools import cache
from pathlib import Path

OURS = f"tactus-{socket.gethostname()}-"
"""How our folders there begin: a cache may be several machines'."""


@cache
def keep_no_copies() -> None:
    """From now on this process's copies go when it does; those of processes that were killed go now."""
    from datasets import config

    root = Path(config.HF_DATASETS_CACHE)
    own = root / f"{OURS}{os.getpid()}"
    try:
        own.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # LeRobot says what is wrong with the folder, if it needs one
    for left in root.glob(f"{OURS}*"):
        number = left.name.removeprefix(OURS)
        if number.isdecimal() and not Path("/proc", number).exists():
            shutil.rmtree(left, ignore_errors=True)
    config.HF_DATASETS_CACHE = own
    atexit.register(_remove, own, os.getpid())


def _remove(folder: Path, made_by: int) -> None:
    if os.getpid() == made_by:  # not a child that was forked
        shutil.rmtree(folder, ignore_errors=True)
