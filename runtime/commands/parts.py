"""`--robot.parts.NAME.KEY=VALUE`: one key of one entry of a mapping, on the command line, over the config file's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml


def merge_parts(arguments: list[str], section: str = "robot.parts") -> list[str]:
    """The arguments with every `--SECTION.…` and the config file's as one `--SECTION={…}`; the last one wins.

    Raises ValueError for a key without part or value, OSError and yaml.YAMLError for a config file that cannot be read.
    """
    prefix = f"--{section}."
    given = [argument for argument in arguments if argument.startswith(prefix)]
    if not given:
        return arguments
    parts = _parts_of_file(arguments, section)
    for argument in given:
        path, equals, value = argument.removeprefix(prefix).partition("=")
        *above, key = path.split(".")
        if not equals or not above:
            raise ValueError(f"{argument}: expected {prefix}NAME.KEY=VALUE")
        at = parts
        for name in above:
            at = at.setdefault(name, {})
            if not isinstance(at, dict):
                raise ValueError(f"{argument}: {name} is not a part or a section of one")
        at[key] = yaml.safe_load(value)
    return [a for a in arguments if a not in given] + [f"--{section}={json.dumps(parts)}"]


def _parts_of_file(arguments: list[str], section: str) -> dict[str, Any]:
    for index, argument in enumerate(arguments):
        name, equals, file = argument.partition("=")
        if name == "--config_path":
            content = yaml.safe_load(Path(file if equals else arguments[index + 1]).read_text()) or {}
            for name in section.split("."):
                content = content.get(name) or {}
            return content
    return {}
