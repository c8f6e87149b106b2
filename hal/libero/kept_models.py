"""Tasks whose model is compiled, kept so that going back to one of them compiles nothing.

Loading a task takes 0.3-0.6 s. A kept one takes 0.2 GB of memory, 0.6 GB with LIBERO's own assets and cameras.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


class KeptModels:
    """Environments by task: at most `most`, and fewer where memory is short.

    For one more, that which was used last is closed: tasks come in turns, so that it is needed latest.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._envs: dict[int, Any] = {}
        self._last: int | None = None

    def __len__(self) -> int:
        return len(self._envs)

    def get(self, task: int, build: Callable[[], Any]) -> Any:
        """The environment of `task`, built if it is not kept."""
        if task not in self._envs:
            if self._last is not None and (len(self._envs) >= self._most or memory_is_short()):
                _close(self._envs.pop(self._last))
            self._last = None
            self._envs[task] = build()
        self._last = task
        return self._envs[task]

    def close(self) -> None:
        while self._envs:
            _close(self._envs.popitem()[1])
        self._last = None


def _close(env: Any) -> None:
    env.close()
    vars(env).clear()  # it refers to itself in many places: without this its memory waits for the garbage collector


def memory_is_short(meminfo: str = "/proc/meminfo") -> bool:
    """Whether less than a quarter of this machine's memory is available; False where nothing says so."""
    file = Path(meminfo)
    if not file.is_file():
        return False
    kilobytes = {
        key: int(rest.split()[0]) for key, _, rest in (x.partition(":") for x in file.read_text().splitlines())
    }
    return kilobytes["MemAvailable"] < kilobytes["MemTotal"] / 4
