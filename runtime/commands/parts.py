"""`--robot.parts.NAME.KEY=VALUE`: one key of one part of a rig, on the command line, over what the config file says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

PREFIX = "--robot.parts."


def merge_parts(arguments: list[str]) -> list[str]:
    """The arguments with every PREFIX… and the config file's parts as one `--robot.parts={…}`; the last one wins.

    Raises ValueError for a key without part or value, OSError and yaml.YAMLError for a config file that cannot be read.
    """
    given = [argument for argument in arguments if argument.startswith(PREFIX)]
    if not given:
        return arguments
    parts = _parts_of_file(arguments)
    for argument in given:
        path, equals, value = argument.removeprefix(PREFIX).partition("=")
        *above, key = path.split(".")
        if not equals or not above:
            raise ValueError(f"{argument}: expected {PREFIX}NAME.KEY=VALUE")
        at = parts
        for name in above:
            at = at.setdefault(name, {})
            if not isinstance(at, dict):
                raise ValueError(f"{argument}: {name} is not a part or a section of one")
        at[key] = yaml.safe_load(value)
    return [a for a in arguments if a not in given] + [f"--robot.parts={json.dumps(parts)}"]


def _parts_of_file(arguments: list[str]) -> dict[str, Any]:
    for index, argument in enumerate(arguments):
        name, equals, file = argument.partition("=")
        if name == "--config_path":
            content = yaml.safe_load(Path(file if equals else arguments[index + 1]).read_text()) or {}
            return (content.get("robot") or {}).get("parts") or {}
    return {}
