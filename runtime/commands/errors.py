"""The last word on what a command, one of its threads or a destructor raises: a line, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from tactus.hal.error_report import anything_described, describe

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

PACKAGE = Path(__file__).resolve().parents[2]


def sentence(error: BaseException) -> str:
    """Our own errors are sentences; of others, where in our code they came up, what they are, a traceback's file."""
    if type(error).__module__.startswith("tactus."):
        return str(error)
    return f"{_place(error)}{describe(error)}"


def _place(error: BaseException) -> str:
    """The last of our functions on the way to where it was raised."""
    places = [
        f"{file.relative_to(PACKAGE)}, {frame.f_code.co_name}: "
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if (file := Path(frame.f_code.co_filename).resolve()).is_relative_to(PACKAGE)
        and file.is_file()
        and "site-packages" not in file.relative_to(PACKAGE).parts
    ]
    return places[-1] if places else ""


def complain(command: str, error: BaseException, beside: str = "") -> None:
    """beside: where it was raised, if not in the command itself."""
    print(f"tactus {command}: {beside}{sentence(error)}", file=sys.stderr)


def also_beside(command: str) -> None:
    """From now on, what a thread or a destructor raises is such a line too."""

    def in_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            complain(command, args.exc_value, f"in the thread {args.thread.name if args.thread else '?'}: ")

    def while_cleaning_up(args: UnraisableHookArgs) -> None:
        if isinstance(args.exc_value, KeyboardInterrupt):  # Python would forget it
            threading.Timer(0.01, os.kill, [os.getpid(), signal.SIGINT]).start()
        elif args.exc_value is not None and not anything_described():
            complain(command, args.exc_value, "while cleaning up: ")

    threading.excepthook, sys.unraisablehook = in_thread, while_cleaning_up
