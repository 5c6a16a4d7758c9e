"""Configurations as plain data: to JSON and back, exactly, with unknown keys refused.

A configuration is a frozen dataclass whose fields are numbers, strings, booleans, None, tuples, and
further configurations. Where a field may hold one of several dataclasses, the JSON names which
under the key "type".
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, TypeVar

from armchair.core.errors import ConfigError, UnknownNameError

Config = TypeVar("Config")


def to_dict(config: Any, *, path: str = "config") -> Any:
    """A configuration as JSON-ready data.

    Args:
        config: The configuration.
        path: What it is called in messages.

    Raises:
        ConfigError: A number in it is not finite, which JSON cannot hold.
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        fields = {
            field.name: to_dict(getattr(config, field.name), path=f"{path}.{field.name}")
            for field in dataclasses.fields(config)
        }
        return {"type": type(config).__name__, **fields}
    if isinstance(config, list | tuple):
        return [to_dict(item, path=path) for item in config]
    if isinstance(config, float) and not math.isfinite(config):
        raise ConfigError(path, got=config, expected="a finite number")
    return config


def from_dict(kind: type[Config], data: Any, *, path: str = "config") -> Config:
    """Build a configuration from what `to_dict` gave, and validate it.

    Args:
        kind: The dataclass to build.
        data: JSON data; fields with defaults may be left out.
        path: Where the data stands, for messages.

    Raises:
        ConfigError: A value has the wrong type, a field is missing, or the values contradict.
        UnknownNameError: A key is no field of the dataclass.
    """
    if not isinstance(data, dict):
        raise ConfigError(path, got=data, expected=f"the fields of a {kind.__name__}")
    named = data.get("type", kind.__name__)
    if named != kind.__name__:
        raise ConfigError(f"{path}.type", got=named, expected=kind.__name__)
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
    values = {}
    for key, value in data.items():
        if key == "type":
            continue
        if key not in fields:
            raise UnknownNameError(f"{path}.{key}", key, fields)
        values[key] = _convert(hints[key], value, f"{path}.{key}")
    missing = [
        name
        for name, field in fields.items()
        if name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(path, got=sorted(data), expected="also " + ", ".join(missing))
    try:
        return kind(**values)
    except ConfigError as error:
        raise error.within(path) from error


def first_difference(one: Any, other: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """Where two configurations (as `to_dict` gives them) first differ: path, one, other."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            inner = f"{path}.{key}" if path else key
            found = first_difference(one.get(key), other.get(key), inner)
            if found:
                return found
        return None
    return None if one == other else (path, one, other)


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(typing.get_args(hint), value, path)
    if origin is typing.Literal:
        return _require(value in typing.get_args(hint), value, path, str(typing.get_args(hint)))
    if origin is tuple:
        return _convert_tuple(typing.get_args(hint), value, path)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, path=path)
    if hint in (float, int):
        allowed = (int, float) if hint is float else (int,)
        fits = isinstance(value, allowed) and not isinstance(value, bool)
        what = "a number" if hint is float else "a whole number"
        return hint(_require(fits, value, path, what))
    if hint not in (str, bool, type(None)):
        raise TypeError(f"{path}: configurations cannot hold {hint!r}")
    return _require(isinstance(value, hint), value, path, f"a {hint.__name__}")


def _convert_union(options: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in options:
        return None
    configs = {
        o.__name__: o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)
    }
    if isinstance(value, dict) and configs:
        name = value.get("type", "")
        if name not in configs:
            raise UnknownNameError(f"{path}.type", str(name), configs)
        return from_dict(configs[name], value, path=path)
    for option in options:
        try:
            return _convert(option, value, path)
        except ConfigError:
            continue
    names = ("None" if o is type(None) else getattr(o, "__name__", str(o)) for o in options)
    raise ConfigError(path, got=value, expected=" or ".join(names))


def _convert_tuple(items: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    _require(isinstance(value, list | tuple), value, path, "a list")
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(value)
    _require(len(items) == len(value), value, path, f"{len(items)} items")
    return tuple(
        _convert(item, part, f"{path}[{index}]")
        for index, (item, part) in enumerate(zip(items, value, strict=True))
    )


def _require(condition: bool, value: Any, path: str, expected: str) -> Any:
    if not condition:
        raise ConfigError(path, got=value, expected=expected)
    return value
