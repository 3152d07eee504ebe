"""Configurations as JSON and back, and the differences of two of them."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def to_json(cfg: Any) -> dict[str, Any]:
    """Convert a configuration (a dataclass) to nested dicts of plain values."""
    values: dict[str, Any] = dataclasses.asdict(cfg)
    return values


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


def with_defaults(values: dict[str, Any], cfg: Any) -> dict[str, Any]:
    """Complete a saved configuration by the fields that it was saved without.

    They came later, so that their defaults say what the run did.

    Args:
        values: Saved configuration, as nested dicts.
        cfg: Any configuration of the same class.

    Returns:
        All fields as nested dicts; `values` itself if it cannot be read.
    """
    try:
        return to_json(from_json(type(cfg), values))
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
