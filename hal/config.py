"""What configs are made of: validated dataclasses, and registries of them that a key `type` picks from.

A config is a class that inherits Config. Its fields carry their bounds (`Annotated[float, Field(gt=0)]`, or a name
below) and a docstring each, which is the help of its key. Whatever builds it, a command line, a YAML file or Python, it
is checked by pydantic: unknown keys, wrong types, NaN and numbers out of bounds are errors that say where and what is
accepted.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, dataclass_transform

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass as validated
from pydantic_core import core_schema

from tactus.hal.error_report import describe

CONFIG = ConfigDict(
    extra="forbid",
    allow_inf_nan=False,
    coerce_numbers_to_str=True,
    use_attribute_docstrings=True,
    defer_build=True,
)

Positive = Annotated[float, Field(gt=0, le=1e9)]
Number = Annotated[float, Field(ge=-1e9, le=1e9)]
NotNegative = Annotated[float, Field(ge=0, le=1e9)]
Share = Annotated[float, Field(ge=0, le=1)]
Hz = Annotated[float, Field(gt=0, le=100_000)]
Seconds = Annotated[float, Field(gt=0, le=1e9)]
SecondsOrZero = Annotated[float, Field(ge=0, le=1e9)]
Count = Annotated[int, Field(gt=0, le=10**9)]
Pixels = Annotated[int, Field(gt=0, le=8192)]


def expanded(path: str) -> Path:
    """A path of the user's, in which `~` is their home and $NAME a variable: no shell sees to that behind a =."""
    return Path(os.path.expanduser(os.path.expandvars(path)))


FilePath = Annotated[str, AfterValidator(lambda path: os.path.expanduser(os.path.expandvars(path)))]
"""A config's path, `expanded`."""


@dataclasses.dataclass(frozen=True)
class Written:
    """Marks a path that is written to: whether it can be is known before anything moves. value: file or folder.
    default: what is written to if the key is not given. but: values that are no path.
    """

    value: Literal["file", "folder"]
    default: str | None = None
    but: tuple[str, ...] = ()


Names = BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
"""For lists: one name alone is a list of it."""


class ConfigError(ValueError):
    """A config that cannot be: the key, what was found, what is accepted."""


@dataclass_transform(field_specifiers=(dataclasses.field, Field))
class _ConfigType(type):
    """Makes a validated dataclass of every class whose type it is; what is wrong when one is built is a ConfigError."""

    key_docs: dict[str, str]

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> None:
        super().__init__(name, bases, namespace, **options)
        made: Any = validated(cls)
        # kept by us: pydantic forgets them when it completes the class, which is put off until it is first built
        cls.key_docs = {key: info.description or "" for key, info in made.__pydantic_fields__.items()}

    if not TYPE_CHECKING:  # which would no longer see what a class is made with

        def __call__(cls, *positional: Any, **keys: Any) -> Any:
            try:
                return super().__call__(*positional, **keys)
            except ValidationError as error:
                raise ConfigError("; ".join(text for _, text in complaints(error))) from None


class Config(metaclass=_ConfigType):
    """Base of all configs: a class that inherits it is a dataclass. `key_docs` holds its fields' docstrings."""

    __pydantic_config__ = CONFIG


class Registry(Config):
    """A base of configs that `type` picks from: a direct subclass is a registry, what it registers are its choices.

    `type` is a registered name, or MODULE:CLASS for one that nobody has registered.
    """

    _choices: ClassVar[dict[str, type[Self]]]
    _registry: ClassVar[type[Registry]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if Registry in cls.__bases__:
            cls._choices, cls._registry = {}, cls

    @classmethod
    def register_subclass[T: type](cls, name: str) -> Callable[[T], T]:
        """A class decorator. One class may have several names; its own is that of the decorator next to it."""

        def register(choice: T) -> T:
            cls._choices[name] = choice  # pyright: ignore[reportArgumentType]
            return choice

        return register

    @classmethod
    def get_known_choices(cls) -> dict[str, type[Self]]:
        """Every registered name and its class, sorted by name."""
        return dict(sorted(cls._choices.items()))

    @classmethod
    def get_choice_name(cls, choice: type) -> str:
        """The first name that the class was registered by; MODULE:CLASS for one that was not."""
        names = (name for name, known in cls._choices.items() if known is choice)
        return next(names, f"{choice.__module__}:{choice.__qualname__}")

    @classmethod
    def choice(cls, name: str) -> type[Self]:
        """Raises ValueError naming what there is."""
        if name in cls._choices:
            return cls._choices[name]
        if ":" not in name:
            known = ", ".join(map(repr, cls.get_known_choices()))
            raise ValueError(f"type: found {name!r}; choose from {known}, or MODULE:CLASS of your own")
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # a console script does not look where it is called
        try:
            found = resolve_name(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"type: {name} cannot be imported: {error}; is its folder on PYTHONPATH?") from error
        except (Exception, SystemExit) as error:
            raise ValueError(f"type: importing {name} raised {describe(error)}") from error
        if not (isinstance(found, type) and issubclass(found, cls._registry) and dataclasses.is_dataclass(found)):
            raise ValueError(f"type: {name} is not a dataclass that inherits {cls._registry.__name__}")
        return found  # pyright: ignore[reportReturnType]

    @classmethod
    def implied_type(cls, keys: Mapping[str, Any]) -> str | None:
        """The type that these keys, given without one, stand for; None if they do not say."""
        return None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        if cls is not cls._registry:
            return handler(source)
        return core_schema.no_info_plain_validator_function(cls._validate)

    @classmethod
    def _validate(cls, value: Any) -> Any:
        """An object of a choice as it is; a mapping with `type` becomes one."""
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            value = {"type": value}
        if not isinstance(value, Mapping):
            raise ValueError(f"found {value!r}; expected keys and values, or the name of a type")
        keys = dict(value)
        name = keys.pop("type", None) or cls.implied_type(keys)
        if name is None:
            raise ValueError(f"type: not given; one of {', '.join(cls.get_known_choices())}")
        return decode(cls.choice(str(name)), keys)


def decode[T](cls: type[T], keys: Any) -> T:
    """An object of `cls` from keys and values as a YAML file or a command line has them; raises ValidationError."""
    return TypeAdapter(cls).validate_python(keys)


def received[T](cls: type[T], keys: Any) -> T:
    """As `decode`, of what another process has encoded; raises ConfigError, in sentences, where this one cannot make
    it: a module that is not on its path, say."""
    try:
        return decode(cls, keys)
    except ValidationError as error:
        raise ConfigError("; ".join(text for _, text in complaints(error))) from None


def encode(config: Any) -> Any:
    """The inverse of `decode`, in what JSON can say: a mapping with `type` for what a registry holds."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        kind = {"type": config.get_choice_name(type(config))} if isinstance(config, Registry) else {}
        return kind | {field.name: encode(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: encode(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [encode(value) for value in config]
    return config


EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list, [A,B]",
    "tuple_type": "a list, [A,B]",
    "dict_type": "a mapping, {A: B}",
    "dataclass_type": "keys and values",
}

BOUNDS = {
    "greater_than": "more than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}


def complaints(error: ValidationError) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Where each of pydantic's errors is, and a sentence about it: what was found, and what is accepted."""
    for each in error.errors():
        place, kind, limits = each["loc"], each["type"], each.get("ctx", {})
        key = ".".join(map(str, place))
        if kind == "value_error":
            text = str(limits["error"])
            joint = "" if not key else "." if re.match(r"\w+: ", text) else ": "
            yield place, f"{key}{joint}{text}"
            continue
        if kind in ("missing", "unexpected_keyword_argument"):
            said = "not given" if kind == "missing" else "unknown key"
        elif kind == "too_short":
            said = "none; name at least one"
        elif kind in EXPECTED:
            said = f"found {each['input']!r}; expected {EXPECTED[kind]}"
        elif kind == "literal_error":
            said = f"found {each['input']!r}; accepted: {limits['expected'].replace(' or ', ', ').replace(chr(39), '')}"
        elif kind in BOUNDS:
            [(name, bound)] = limits.items()
            zero = {"gt": "must be positive", "ge": "must not be negative"}
            must = zero[name] if bound == 0 and name in zero else f"must be {BOUNDS[kind]} {bound:g}"
            found = each["input"]
            said = f"found {format(found, 'g') if isinstance(found, float) else found}; {must}"
        else:
            said = f"found {each['input']!r}; {each['msg'][:1].lower()}{each['msg'][1:]}"
        yield place, f"{key}: {said}"
