"""Golden cases on another device: each operation computes there, and its results come back.

Checks make their tensors on the CPU and compare there; none needs to know. What a test changes in
place, draws at random or only looks at in another shape stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

SECRETLY_IN_PLACE = {"native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"}
"""Change running statistics, of which their schemas say nothing."""


@cache
def computes(operation: Any) -> bool:
    """Return True if results follow from the arguments alone, and are tensors of their own."""
    schema = operation._schema
    named = {argument.name for argument in schema.arguments}
    return (
        operation.namespace == "aten"
        and not schema.is_mutable
        and schema.name.removeprefix("aten::") not in SECRETLY_IN_PLACE
        and torch.Tag.nondeterministic_seeded not in operation.tags
        and not named & {"device", "generator"}
        and any("Tensor" in str(result.type) for result in schema.returns)
        and not any(result.alias_info for result in schema.returns)
    )


class Kernels(TorchDispatchMode):
    """Runs each operation that computes on a device; `count` of them did."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.count, self.stayed = torch.device(device), 0, set[str]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = args, kwargs or {}
        tensors = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        if not tensors or not computes(func) or any(t.is_meta for t in tensors):
            return func(*given[0], **given[1])
        try:
            there = tree_map_only(Tensor, lambda t: t.to(self.device), given)
            found = tree_map_only(Tensor, lambda t: t.cpu(), func(*there[0], **there[1]))
        except (NotImplementedError, RuntimeError):  # no kernel there, or a mistake of the test's
            found = func(*given[0], **given[1])
            self.stayed.add(str(func))
        else:
            self.count += 1
        return found


@contextmanager
def kernels_of(device: str) -> Iterator[Kernels]:
    """Compute inside on a device, in the precision that is asked for."""
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        # attention as products that every device has
        with sdpa_kernel(SDPBackend.MATH), Kernels(device) as mode:
            yield mode
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
