"""Configurations as JSON and back, and the differences of two of them."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def to_json(cfg: Any) -> dict[str, Any]:
    """Convert a configuration (a dataclass) to nested dicts of plain values."""
    values: dict[str, Any] = dataclasses.asdict(cfg)
    return values


def require(cfg: Any, group: str, limits: str, *names: str) -> None:
    """Refuse fields that are not finite numbers within limits; each of a tuple's must be.

    Args:
        cfg: Dataclass that has the fields.
        group: What stands before their names on the command line: "model."; "" for none.
        limits: Interval as it is written in mathematics, such as "[1, inf)" or "(0, 1]".
        names: Fields.

    Raises:
        ValueError: A value is not within the limits; the error names option, value and limit.
    """
    least, most = (float(end) for end in limits[1:-1].split(","))
    for name in names:
        value = getattr(cfg, name)
        for one in value if isinstance(value, tuple) else (value,):
            is_high = one > least or (one == least and limits[0] == "[")
            is_low = one < most or (one == most and limits[-1] == "]")
            if not (math.isfinite(one) and is_high and is_low):
                raise ValueError(
                    f"--{group}{name.replace('_', '-')} must be {_in_words(limits)}, got {value}"
                )


def _in_words(limits: str) -> str:
    if limits == "(0, inf)":
        return "positive and finite"
    return f"at least {limits[1:-6]}" if limits.endswith(", inf)") else f"in {limits}"


def require_finite(cfg: Any, group: str = "") -> None:
    """Refuse NaN and infinity in any field of a configuration; ValueError names the option."""
    for key, value in flatten(to_json(cfg)).items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, float) and not math.isfinite(one):
                raise ValueError(
                    f"--{group}{key.replace('_', '-')} must be a finite number, got {one}"
                )


def _as(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return from_json(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} must be a list, got {value!r}")
        item = arguments[0] if len(arguments) == 2 and arguments[1] is Ellipsis else None
        kinds = [item] * len(value) if item is not None else list(arguments)
        return tuple(
            _as(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True))
        )
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError(f"{where} must be one of {arguments}, got {value!r}")
        return value
    if origin in (typing.Union, types.UnionType):
        return value
    if kind is float and isinstance(value, int):
        return float(value)
    if isinstance(kind, type) and not isinstance(value, kind):
        raise ValueError(f"{where} must be a {kind.__name__}, got {value!r}")
    return value


def from_json(cls: type[T], values: dict[str, Any], where: str = "config") -> T:
    """Rebuild a configuration from what `to_json` made of it.

    Args:
        cls: Dataclass of the configuration.
        values: Field -> value; absent fields keep their defaults.
        where: Name of the configuration in errors.

    Returns:
        The configuration, its nested dataclasses and tuples included.

    Raises:
        ValueError: A field is unknown or has a wrong type; the error names it.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be an object, got {values!r}")
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise ValueError(
            f"{where} has fields this version does not know: {', '.join(unknown)}; "
            "it was written by another version of tenfold"
        )
    return cls(**{k: _as(hints[k], values[k], f"{where}.{k}") for k in names if k in values})


def absolute(cfg: T, paths: Sequence[str]) -> T:
    """The configuration with the named fields that are not empty as absolute paths, ~ expanded.

    A run is used from other folders than the one it was started in.
    """
    for name in paths:
        path = get(cfg, name)
        if path:
            cfg = with_field(cfg, name, os.path.abspath(os.path.expanduser(path)))
    return cfg


def get(cfg: Any, name: str) -> Any:
    """The value of a field by its dotted name."""
    return functools.reduce(getattr, name.split("."), cfg)


def with_field(cfg: Any, name: str, value: Any) -> Any:
    """The configuration with one field, by its dotted name, replaced."""
    first, _, rest = name.partition(".")
    value = with_field(getattr(cfg, first), rest, value) if rest else value
    return dataclasses.replace(cfg, **{first: value})


def with_defaults(values: dict[str, Any], cfg: Any, paths: Sequence[str] = ()) -> dict[str, Any]:
    """Complete a saved configuration by the fields that it was saved without.

    They came later, so that their defaults say what the run did. Paths that an earlier version
    saved as they were given are made absolute.

    Args:
        values: Saved configuration, as nested dicts.
        cfg: Any configuration of the same class.
        paths: Dotted names of the fields that are paths.

    Returns:
        All fields as nested dicts; `values` itself if it cannot be read.
    """
    try:
        return to_json(absolute(from_json(type(cfg), values), paths))
    except ValueError:
        return values


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts into one with dotted names behind `prefix`; tuples become lists."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """List "field: a -> b" for every field, by dotted name, in which two nested dicts differ."""
    left, right = flatten(a), flatten(b)
    missing = "(absent)"
    return [
        f"{key}: {left.get(key, missing)} -> {right.get(key, missing)}"
        for key in sorted(left.keys() | right.keys())
        if _plain(left.get(key, missing)) != _plain(right.get(key, missing))
    ]


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
