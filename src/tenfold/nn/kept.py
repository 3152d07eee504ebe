"""Constants that are made once and kept."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch

Made = TypeVar("Made")


def kept(maxsize: int) -> Callable[[Callable[..., Made]], Callable[..., Made]]:
    """`functools.lru_cache` for functions that make tensors.

    While torch traces or exports, nothing is kept: a tensor that is made then belongs to the
    trace, and has no values that a later call could use.
    """

    def decorate(make: Callable[..., Made]) -> Callable[..., Made]:
        once = lru_cache(maxsize)(make)

        @wraps(make)
        def found(*args: Hashable, **kwargs: Any) -> Made:
            return make(*args, **kwargs) if torch.compiler.is_compiling() else once(*args, **kwargs)

        return found

    return decorate
