"""Renaming the tensors of a published checkpoint to ours, with nothing left unsaid."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from tenfold.printable import Lines

Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rule:
    """Keys that match `pattern` whole become `replacement` (as in `re.sub`)."""

    pattern: str
    replacement: str
    transform: Transform | None = None
    """Change of the tensor: transpose, permute, drop a dimension."""
    inverse: Transform | None = None
    """The way back; needed by `KeyMap.reversed_state` where there is a transform."""


@dataclass
class Converted:
    """A checkpoint under our keys, and every key for which that did not work."""

    state: dict[str, Tensor] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    """Our key -> their key."""
    unused: list[str] = field(default_factory=list)
    """Their keys that no rule knows, or that lead to none of our keys."""
    missing: list[str] = field(default_factory=list)
    """Our keys that nothing filled."""
    ignored: list[tuple[str, str]] = field(default_factory=list)
    """Their keys that are left out on purpose, and why."""
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    """Our keys whose tensor has another shape: key, got, wanted."""

    @property
    def is_complete(self) -> bool:
        """Every key of both sides is accounted for."""
        return not (self.unused or self.missing or self.mismatched)

    def with_prefix(self, prefix: str) -> Converted:
        """The same as a part of a larger model, whose keys begin with `prefix`."""
        return Converted(
            {prefix + key: value for key, value in self.state.items()},
            {prefix + key: theirs for key, theirs in self.origin.items()},
            self.unused,
            [prefix + key for key in self.missing],
            self.ignored,
            [(prefix + key, got, want) for key, got, want in self.mismatched],
        )

    def report(self) -> str:
        """Report what was converted and, one a line, what was not."""
        lines = [f"{len(self.state)} tensors converted"]
        lines += [f"unused: {key}" for key in self.unused]
        lines += [f"missing: {key}" for key in self.missing]
        lines += [f"shape: {key} is {got}, expected {want}" for key, got, want in self.mismatched]
        reasons: dict[str, list[str]] = {}
        for key, reason in self.ignored:
            reasons.setdefault(reason, []).append(key)
        for reason, keys in reasons.items():
            lines += [f"ignored ({reason}): {key}" for key in keys]
        return "\n".join(lines)

    def misfit(self, start: str | Path) -> Lines:
        """Say that weights to start from do not fit, and every key that does not."""
        return Lines(
            f"{start} does not fit this configuration (--config takes over that of a run; "
            f"--allow-missing starts anew what does not fit):\n{self.report()}"
        )

    def require_start(self, start: str, allow_missing: bool) -> None:
        """Raise a ValueError if weights to start from do not fit.

        With `allow_missing` that is a warning, so long as any tensor fits.
        """
        if self.is_complete:
            return
        if not allow_missing or not self.state:
            raise ValueError(self.misfit(start))
        warnings.warn(self.misfit(start), stacklevel=4)

    def require_complete(self) -> dict[str, Tensor]:
        """The state, or a ValueError that lists every key that did not fit."""
        if not self.is_complete:
            raise ValueError(Lines(f"the checkpoint does not fit this model:\n{self.report()}"))
        return self.state


@dataclass(frozen=True)
class KeyMap:
    """Rules, tried in order, and patterns of keys that are left out on purpose, with the reason."""

    rules: list[Rule]
    ignore: list[tuple[str, str]] = field(default_factory=list)

    def convert(
        self, state: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]
    ) -> Converted:
        """Rename `state` to the keys of `target`, checking every shape."""
        out = Converted()
        for key, value in state.items():
            reason = next((why for pattern, why in self.ignore if re.fullmatch(pattern, key)), None)
            if reason is not None:
                out.ignored.append((key, reason))
                continue
            rule = next((r for r in self.rules if re.fullmatch(r.pattern, key)), None)
            name = "" if rule is None else re.sub(rule.pattern, rule.replacement, key)
            if rule is None or name not in target:
                out.unused.append(key)
                continue
            if name in out.origin:
                raise ValueError(f"both {out.origin[name]} and {key} are mapped to {name}")
            out.origin[name] = key
            try:
                tensor = rule.transform(value) if rule.transform else value
            except (RuntimeError, IndexError):  # a shape that the transform cannot take
                tensor = value
            if tuple(tensor.shape) != tuple(target[name]):
                out.mismatched.append((name, tuple(tensor.shape), tuple(target[name])))
            else:
                out.state[name] = tensor.contiguous()
        out.missing = [key for key in target if key not in out.origin]
        return out

    def reversed_state(
        self, state: Mapping[str, Tensor], template: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The way back: `state` under the keys of `template`; what is ignored stays as it is."""
        out = dict(template)
        for key in template:
            rule = next((r for r in self.rules if re.fullmatch(r.pattern, key)), None)
            if rule is None or any(re.fullmatch(pattern, key) for pattern, _ in self.ignore):
                continue
            if rule.transform and not rule.inverse:
                raise ValueError(f"the rule {rule.pattern} has a transform but no inverse")
            tensor = state[re.sub(rule.pattern, rule.replacement, key)]
            out[key] = (rule.inverse(tensor) if rule.inverse else tensor).contiguous()
        return out


def shape_of(state: Mapping[str, Tensor], key: str, ndim: int) -> tuple[int, ...]:
    """The shape of a tensor that must be there, of so many dimensions."""
    if key not in state:
        raise ValueError(f"it has no {key}")
    shape = tuple(state[key].shape)
    if len(shape) != ndim or not all(shape):
        raise ValueError(f"{key} is of shape {shape}, where {ndim} dimensions are expected")
    return shape


def numbers_of(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    """The numbers that keys have where `pattern` has its group, in order."""
    return sorted({int(m[1]) for key in state if (m := re.match(pattern, key))})


def require_shape(state: Mapping[str, Tensor], key: str, *shape: int) -> None:
    """ValueError unless a tensor is there, of this shape."""
    if key not in state:
        raise ValueError(f"it has no {key}")
    if tuple(state[key].shape) != shape:
        raise ValueError(f"{key} is of shape {tuple(state[key].shape)}, expected {shape}")
