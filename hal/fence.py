"""Around somebody else's code: what it raises becomes an error that says which part raised it, and doing what."""

from __future__ import annotations

from types import TracebackType

from tactus.hal.config import ConfigError
from tactus.hal.error_report import describe, interrupted
from tactus.hal.robot import RobotError
from tactus.hal.spec import SpecError


class Fence:
    """Around a call of code that is not ours: whatever it raises is a `kind` that says which part raised it, and doing
    what. Errors that are sentences already, and interrupts, pass.

        with Fence("robot gym", "reset"):
            env.reset()
    """

    def __init__(self, part: str, doing: str, kind: type[Exception] = RobotError) -> None:
        self._part, self._doing, self._kind = part, doing, kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None or is_sentence(error) or isinstance(error, KeyboardInterrupt | GeneratorExit):
            return
        if interrupted(error):
            raise KeyboardInterrupt from error
        raise self._kind(f"{self._part}: {self._doing} raised {describe(error)}") from error


def is_sentence(error: BaseException) -> bool:
    """Whether an error is one of ours, or a group of them: its text is for users."""
    ours = (RobotError, SpecError, ConfigError)
    if isinstance(error, BaseExceptionGroup):
        return error.split(ours)[1] is None
    return isinstance(error, ours)
