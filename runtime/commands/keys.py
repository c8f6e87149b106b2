"""Which keys a config class has: walks nested sections, types that `type` picks, and mappings of named parts."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from tactus.hal.config import Registry, Written, encode
from tactus.runtime.commands.config import COMMANDS, SHARED
from tactus.runtime.commands.key_groups import Bare, Positional

Keys = tuple[Any, ...]
"""Names of nested keys, outermost first."""


@dataclass(frozen=True)
class Key:
    """One key of a class. hint: its annotation; annotation: that without bounds and None. group: title of the part that
    it comes from. positional: what stands for it in the usage, if its place on the command line gives it.
    bare: what it is without a value; None if it needs one. written: how it is written to, if it is a path that is."""

    name: str
    hint: Any
    annotation: Any
    doc: str
    group: str
    default: Any
    required: bool
    positional: str | None
    bare: Any
    written: Written | None

    @property
    def section(self) -> type | None:
        """The config class of a nested section; for a registry, its base."""
        kind = self.annotation
        return kind if isinstance(kind, type) and (is_registry(kind) or dataclasses.is_dataclass(kind)) else None


@cache
def keys_of(cls: type) -> dict[str, Key]:
    """A class's keys by name, part by part as its bases stand."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    found = {}
    for part in cls.__mro__:
        title = (part.__doc__ or "").partition("\n")[0].rstrip(".")
        docs = vars(part).get("key_docs", {})
        for name in vars(part).get("__annotations__", {}):
            if name not in fields or name in found:
                continue
            field, hint = fields[name], hints[name]
            marked = {type(mark): mark for mark in marks(hint)}
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            place, bare = (getattr(marked.get(mark), "value", None) for mark in (Positional, Bare))
            written = marked.get(Written)
            core = _core(hint)
            found[name] = Key(name, hint, core, docs.get(name, ""), title, default, required, place, bare, written)
    return found


def marks(annotation: Any) -> Iterator[Any]:
    """What annotations stand on a type, and on those that it is a union of."""
    yield from getattr(annotation, "__metadata__", ())
    for inner in get_args(annotation) if get_origin(annotation) is not Annotated else get_args(annotation)[:1]:
        yield from marks(inner)


def _core(annotation: Any) -> Any:
    """Without bounds, and without None."""
    if get_origin(annotation) is Annotated:
        return _core(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not types.NoneType]
        return _core(kinds[0]) if len(kinds) == 1 else annotation
    return annotation


def is_registry(cls: Any) -> bool:
    """Whether `type` picks what it stands for."""
    return isinstance(cls, type) and issubclass(cls, Registry) and cls is getattr(cls, "_registry", None)


def chosen(registry: type[Registry], data: Any, default: Any = None) -> type | None:
    """The class that a section's `type` names, else what its keys imply, else the default's; None for no such type."""
    data = {"type": data} if isinstance(data, str) else data if isinstance(data, Mapping) else {}
    name = data.get("type") or registry.implied_type(data)
    if name is None:
        return None if default is None else type(default)
    try:
        return registry.choice(str(name))
    except ValueError:
        return None


def section(cls: type, path: Keys, data: Any = None) -> type | None:
    """The class whose keys lie at `path` below `cls`, with the types that `data` names; None if there is none."""
    here: Any = cls
    for name in path:
        default = None
        if get_origin(here) is dict:
            here = _core(get_args(here)[1])
        elif dataclasses.is_dataclass(here) and isinstance(here, type) and name in keys_of(here):
            key = keys_of(here)[str(name)]
            here, default = key.annotation, key.default
        else:
            return None
        data = data.get(name) if isinstance(data, Mapping) else None
        if is_registry(here):
            here = chosen(here, data, default)
    return here if isinstance(here, type) and dataclasses.is_dataclass(here) else None


def walk(kind: Any, tree: Any, path: Keys = (), default: Any = None) -> Iterator[tuple[Keys, Key | None, Any]]:
    """Every key in `tree` with its path and value; None for a key that its class, or its type's, does not have."""
    if not isinstance(tree, Mapping):
        return
    if get_origin(kind) is dict:
        for name, value in tree.items():
            yield from walk(_core(get_args(kind)[1]), value, (*path, name))
    if is_registry(kind):
        kind = chosen(kind, tree, default)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return
    for name, value in tree.items():
        key = keys_of(kind).get(name)
        if key is not None or not (name == "type" and issubclass(kind, Registry)):
            yield (*path, name), key, value
        if key is not None:
            yield from walk(key.annotation, value, (*path, name), key.default)


def strays(cls: type, tree: Any) -> list[Keys]:
    """The keys in `tree` that nobody reads."""
    return [path for path, key, _ in walk(cls, tree) if key is None]


def has(cls: type, path: Keys, data: Any = None) -> bool:
    """Whether `cls` has a key at `path`."""
    name = path[-1]
    at = section(cls, path[:-1], data)
    return at is not None and (name in keys_of(at) or (name == "type" and issubclass(at, Registry)))


def users(path: Keys, data: Any = None) -> list[str]:
    """Commands that have a key at `path`."""
    return [command for command in SHARED if has(COMMANDS[command], path, data)]


def leaves(cls: type, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Key]]:
    """Every key with its path, nested sections opened; a registry's types stay closed."""
    for key in keys_of(cls).values():
        if key.section is not None and not is_registry(key.section):
            yield from leaves(key.section, (*path, key.name))
        else:
            yield (*path, key.name), key


def shown(value: Any) -> str:
    """A value as one would write it on the command line; empty for none."""
    value = encode(value)
    if value is None or value == "" or value == [] or value == {}:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(shown(each) for each in value)}]"
    if isinstance(value, dict):
        return str(value.get("type", "…"))
    return f"{value:g}" if isinstance(value, float) else str(value)
