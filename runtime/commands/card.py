"""`tactus card`: what a checkpoint of `tactus train` reads, how it was made, how it fared."""

from __future__ import annotations

from pathlib import Path

from tactus.runtime.commands.config import Card
from tactus.runtime.commands.verification import PASSED, told
from tactus.runtime.training.card import write_card


def main(config: Card, arguments: list[str]) -> int:
    """Exit status 0 when it is written, 2 for what is no such checkpoint, or results of another policy."""
    return told("card", lambda: _card(config))


def _card(config: Card) -> int:
    print(write_card(Path(config.checkpoint), [Path(one) for one in config.results]))
    return PASSED
