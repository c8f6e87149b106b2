"""A choice made on the command line replaces the config file's, with all that the file says of the other one."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

CHOICES = ("robot", "policy", "teleop")
"""Sections whose `type` decides which keys they have."""


@contextlib.contextmanager
def without_replaced_choices(arguments: list[str]) -> Iterator[list[str]]:
    """The arguments, with a config file that lacks the sections whose type they change, for as long as it is needed.

    `--policy.path=CHECKPOINT` over a file with `policy: {type: picker, vision: true}` must not meet `vision`.
    Raises OSError and yaml.YAMLError for a config file that cannot be read.
    """
    at = next((i for i, argument in enumerate(arguments) if argument.split("=")[0] == "--config_path"), None)
    named = {section: _value(arguments, f"--{section}.type") for section in CHOICES}
    if at is None or not any(named.values()):
        yield arguments
        return
    _, equals, file = arguments[at].partition("=")
    content = yaml.safe_load(Path(file if equals else arguments[at + 1]).read_text()) or {}
    replaced = [
        section
        for section, kind in named.items()
        if kind and isinstance(content.get(section), dict) and content[section].get("type", kind) != kind
    ]
    if not replaced:
        yield arguments
        return
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as kept:
        yaml.safe_dump({key: value for key, value in content.items() if key not in replaced}, kept)
        kept.flush()
        yield [*arguments[:at], f"--config_path={kept.name}", *arguments[at + (1 if equals else 2) :]]


def _value(arguments: list[str], key: str) -> str | None:
    """The last value of a key, as `--key=value` or `--key value`."""
    found = None
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == key:
            found = value if equals else "".join(arguments[index + 1 : index + 2])
    return found
