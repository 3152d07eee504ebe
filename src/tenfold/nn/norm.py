"""Batch normalisation of every (node, feature) pair, with statistics over all processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class NodeBatchNorm(nn.Module):
    """`nn.BatchNorm1d(num_nodes * width)` on node-major features, same state, same numbers.

    Statistics pool the batch, the channels, and in training all processes of torch.distributed
    (torch's SyncBatchNorm does not run on CPU).
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def scale_and_shift(self) -> tuple[Float[Tensor, "feature"], Float[Tensor, "feature"]]:
        """The affine map that evaluation applies: x * scale + shift."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(
        self, x: Float[Tensor, "channel node batch width"]
    ) -> Float[Tensor, "channel node batch width"]:
        """Normalise, pooling channel and batch."""
        shape = (x.shape[1], 1, x.shape[3])
        if not self.training:
            scale, shift = self.scale_and_shift()
            return torch.addcmul(shift.view(shape), x, scale.view(shape)).to(x.dtype)
        y, mean, var, count = _Standardise.apply(
            x, self.weight.view(shape), self.bias.view(shape), self.eps
        )
        with torch.no_grad():
            self.num_batches_tracked += 1
            unbiased = var * (count / (count - 1))
            self.running_mean.lerp_(mean.flatten(), self.momentum)
            self.running_var.lerp_(unbiased.flatten(), self.momentum)
        return y


def _world_sum(x: Tensor) -> Tensor:
    """Sum over the processes, where there are several."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(x)
    return x


class _Standardise(torch.autograd.Function):
    """(x - mean) / std * weight + bias with batch statistics, and its gradient."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):  # type: ignore[no-untyped-def]
        wide = x.to(weight.dtype)
        count = _world_sum(torch.tensor(float(x.shape[0] * x.shape[2]), device=x.device))
        mean = _world_sum(wide.sum((0, 2), keepdim=True)[0]) / count
        centred = wide - mean
        var = _world_sum(centred.square().sum((0, 2), keepdim=True)[0]) / count
        inverse_std = (var + eps).rsqrt()
        scale = weight * inverse_std
        ctx.save_for_backward(centred, inverse_std, scale, count)
        y = torch.addcmul(bias, centred, scale).to(x.dtype)
        ctx.mark_non_differentiable(mean, var, count)
        return y, mean, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, *_):  # type: ignore[no-untyped-def]
        centred, inverse_std, scale, count = ctx.saved_tensors
        wide = grad.to(centred.dtype)
        grad_bias = wide.sum((0, 2), keepdim=True)[0]
        grad_weight = (wide * centred).sum((0, 2), keepdim=True)[0] * inverse_std
        # The gradient of x needs the sums of all processes; the parameters' are averaged by DDP.
        sums = _world_sum(torch.stack([grad_bias, grad_weight])) / count
        grad_x = wide - torch.addcmul(sums[0], centred, sums[1] * inverse_std)
        grad_x *= scale
        return grad_x.to(grad.dtype), grad_weight, grad_bias, None
