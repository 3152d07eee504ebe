"""Batch norms at inference as part of the convolutions before them."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from . import efficientnet, resnet, resnet38

Network = TypeVar("Network", bound=nn.Module)

PAIRS: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    nn.Sequential: (("0", "1"),),
    resnet.ResNet: (("conv1", "bn1"),),
    resnet.BasicBlock: (("conv1", "bn1"), ("conv2", "bn2")),
    resnet.Bottleneck: (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    resnet38.Block: (("conv_branch2a", "bn_branch2b1"),),
    resnet38.Bottleneck: (("conv_branch2a", "bn_branch2b1"), ("conv_branch2b1", "bn_branch2b2")),
    efficientnet.EfficientNetLite: (("conv_stem", "bn0"), ("conv_head", "bn1")),
    efficientnet.Block: (
        ("expand_conv", "bn0"),
        ("depthwise_conv", "bn1"),
        ("project_conv", "bn2"),
    ),
}  # fmt: skip
"""Convolutions and the norms right behind them, by their names in a module."""


class Pointwise(nn.Linear):
    """A 1x1 convolution as a product, which needs no copy of a map whose channels lie last.

    In float32 and one thread, torch takes an older kernel for such convolutions.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        bias = conv.bias is not None
        super().__init__(conv.in_channels, conv.out_channels, bias, device="meta")  # draws nothing
        self.weight = nn.Parameter(conv.weight.detach().flatten(1))
        if conv.bias is not None:
            self.bias = nn.Parameter(conv.bias.detach())

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch out height width"]:
        """Convolve."""
        return F.linear(x.movedim(1, 3), self.weight, self.bias).movedim(3, 1)


def is_pointwise(conv: nn.Conv2d) -> bool:
    """Return True for a convolution that mixes the channels of each place alone."""
    return (
        conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.groups == 1
        and conv.padding in ((0, 0), 0)
    )  # fmt: skip


def folded(network: Network) -> Network:
    """A copy, for inference alone, that computes the same with fewer passes over its maps."""
    found = deepcopy(network).eval()
    for module in found.modules():
        for first, second in PAIRS.get(type(module), ()):
            conv, norm = getattr(module, first, None), getattr(module, second, None)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                assert norm.running_mean is not None and norm.running_var is not None
                conv.weight, conv.bias = fuse_conv_bn_weights(
                    conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps,
                    norm.weight, norm.bias,
                )  # fmt: skip
                setattr(module, second, nn.Identity())
    for module in list(found.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, nn.Conv2d) and is_pointwise(part):
                setattr(module, name, Pointwise(part))
    return found
