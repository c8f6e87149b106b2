"""`tactus schema`: the JSON Schema of config files, with which editors complete keys and mark what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, get_args, get_origin

from pydantic import TypeAdapter

from tactus.hal.config import CONFIG, Registry, encode
from tactus.runtime.commands.config import COMMANDS, SHARED, Schema
from tactus.runtime.commands.keys import Key, is_registry, keys_of


def main(config: Schema, arguments: list[str]) -> int:
    """Exit status 0."""
    print(json.dumps(schema(config.kind), indent=1, ensure_ascii=False))
    return 0


def schema(kind: str) -> dict[str, Any]:
    """Of the file that all commands read, or of the twin's."""
    commands = SHARED if kind == "config" else ("twin",)
    keys = {k.name: k for c in reversed(commands) for k in keys_of(COMMANDS[c]).values() if not k.positional}
    definitions: dict[str, Any] = {}
    title = "a config file of tactus" if kind == "config" else "a config file of `tactus twin`"
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return {**head, **_object(sorted(keys.values(), key=lambda key: key.name), definitions), "$defs": definitions}


def _object(keys: Iterable[Key], definitions: dict[str, Any]) -> dict[str, Any]:
    properties = {key.name: _described(key, _of(key.annotation, key.hint, definitions)) for key in keys}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _described(key: Key, value: dict[str, Any]) -> dict[str, Any]:
    default = {} if key.required or key.section is not None else {"default": encode(key.default)}
    return {**value, "description": " ".join(key.doc.split()), **default}


def _of(annotation: Any, hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """A value's schema; classes are defined once, and referred to."""
    if get_origin(annotation) is dict and isinstance(get_args(annotation)[1], type):
        inner = get_args(annotation)[1]
        return {"type": "object", "additionalProperties": _of(inner, inner, definitions)}
    if is_registry(annotation):
        return {"$ref": _registry(annotation, definitions)}
    if not hasattr(annotation, "key_docs"):
        return TypeAdapter(hint, config=CONFIG).json_schema()
    if annotation.__name__ not in definitions:
        definitions[annotation.__name__] = _object(keys_of(annotation).values(), definitions)
    return {"$ref": f"#/$defs/{annotation.__name__}"}


def _registry(registry: type[Registry], definitions: dict[str, Any]) -> str:
    """A section whose `type` decides which keys it has: a definition for each type."""
    place = f"#/$defs/{registry.__name__}"
    if registry.__name__ in definitions:
        return place
    choices = registry.get_known_choices()
    names = {"type": "string", "anyOf": [{"enum": [*choices]}, {"pattern": "^[\\w.]+:\\w+$"}]}
    branches = [
        {
            "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
            "then": {"$ref": f"{place}.{registry.get_choice_name(choice)}"},
        }
        for name, choice in choices.items()
    ]
    section = {"type": "object", "properties": {"type": names}, "allOf": branches}
    definitions[registry.__name__] = {"anyOf": [{"enum": [*choices]}, section]}  # before its types: rigs hold robots
    for choice in dict.fromkeys(choices.values()):
        keys = _object(keys_of(choice).values(), definitions)
        known = [name for name, each in choices.items() if each is choice]
        keys["properties"] = {"type": {"enum": known, "description": choice.__doc__}, **keys["properties"]}
        definitions[f"{registry.__name__}.{registry.get_choice_name(choice)}"] = keys
    return place
