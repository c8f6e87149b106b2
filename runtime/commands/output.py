"""What a robot's command tells, line by line: to a person, or as JSON to whoever collects logs."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console

from tactus.runtime.logs import json_line
from tactus.runtime.robot_node.watcher import Beginning, Watcher

TICK = re.compile(r"tick (\d+): (.*)", re.DOTALL)
"""How the loops begin what they say."""


class Output(Watcher):
    """log_format: text, for `console` and stderr, or json, for stdout and stderr. Watching episodes, it knows which one
    a line belongs to.
    """

    def __init__(self, command: str, log_format: str, console: Console) -> None:
        self.as_json = log_format == "json"
        self._command = command
        self._console = console
        self._episode: int | None = None
        self.told: Callable[[str, str], None] = lambda level, line: None
        """Hears of every line too, with its level: for the robot's page."""

    def begin(self, beginning: Beginning) -> None:
        self._episode = beginning.episode

    def tell(self, text: str, level: str = "info", **fields: Any) -> None:
        """What the run is about, and how it goes. fields: of the JSON object."""
        self._tell(text, level, **fields)
        self.told(level, text.strip())

    def _tell(self, text: str, level: str = "info", **fields: Any) -> None:
        if self.as_json:
            print(json_line(level, f"tactus.{self._command}", text.strip(), **fields), flush=True)
        else:
            self._console.print(text, markup=False)

    def tell_whole(self, text: str, **fields: Any) -> None:
        """As `tell`, but never broken into lines: an address must be one piece to be opened."""
        if self.as_json:
            self._tell(text, **fields)
        else:
            self._console.print(text, markup=False, soft_wrap=True)
        self.told("info", text)

    def say(self, text: str) -> None:
        """What a loop says during an episode."""
        self.told("warning" if TICK.fullmatch(text) else "info", text)
        if not self.as_json:
            self._console.print(text, markup=False)
        elif said := TICK.fullmatch(text):
            self._tell(said[2], "warning", tick=int(said[1]), episode=self._episode)
        else:
            self._tell(text, episode=self._episode)

    def complain(self, error: object) -> None:
        """Why the command ends, or what went wrong at its end."""
        self.told("error", str(error))
        if self.as_json:
            line = json_line("error", f"tactus.{self._command}", str(error), episode=self._episode)
            print(line, file=sys.stderr, flush=True)
        else:
            print(f"tactus {self._command}: {error}", file=sys.stderr)
