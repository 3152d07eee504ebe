"""Batch normalisation with statistics over all processes, on any device."""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Affine(nn.Module):
    """x * scale + shift, feature by feature: what BatchNorm is at inference."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Float[Tensor, " feature"], shift: Float[Tensor, " feature"]) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Float[Tensor, "sample feature"]) -> Float[Tensor, "sample feature"]:
        """Scale and shift."""
        return torch.addcmul(self.shift, x, self.scale).to(x.dtype)


class BatchNorm(nn.Module):
    """`nn.BatchNorm1d` for many features and few samples: same state, same numbers, faster on CPU.

    In training its statistics are those of all processes of torch.distributed together (torch's
    SyncBatchNorm refuses CPU tensors), so a run on two processes equals a run on one.
    """

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

    def forward(self, x: Float[Tensor, "sample feature"]) -> Float[Tensor, "sample feature"]:
        """Normalise with the statistics of the samples; at inference with the running ones."""
        if not self.training:
            scale, shift = self._scale_and_shift()
            return torch.addcmul(shift, x, scale).to(x.dtype)
        y, mean, var, count = _Standardise.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / (count - 1)), self.momentum)   # unbiased
        return y

    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def folded(self) -> Affine:
        """The running statistics, weight and bias as one scale and one shift."""
        return Affine(*(tensor.detach() for tensor in self._scale_and_shift()))


def _world_sum(x: Tensor) -> Tensor:
    """Sum over the processes, where there are several."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(x)
    return x


class _Standardise(torch.autograd.Function):
    """(x - mean) / std * weight + bias with batch statistics, and its gradient."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):  # type: ignore[no-untyped-def]
        wide = x.to(weight.dtype)                        # statistics of bfloat16 in float32
        count = _world_sum(torch.tensor(float(len(x)), device=x.device))
        mean = _world_sum(wide.sum(0)) / count
        centred = wide - mean
        var = _world_sum(centred.square().sum(0)) / count
        inverse_std = (var + eps).rsqrt()
        scale = weight * inverse_std
        ctx.save_for_backward(centred, inverse_std, scale, count)
        ctx.mark_non_differentiable(mean, var, count)
        return torch.addcmul(bias, centred, scale).to(x.dtype), mean, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, *_):  # type: ignore[no-untyped-def]
        centred, inverse_std, scale, count = ctx.saved_tensors
        wide = grad.to(centred.dtype)
        grad_bias = wide.sum(0)
        grad_weight = (wide * centred).sum(0) * inverse_std
        # The gradient of x needs the sums of all processes; those of the parameters DDP averages.
        sums = _world_sum(torch.stack([grad_bias, grad_weight])) / count
        grad_x = wide - torch.addcmul(sums[0], centred, sums[1] * inverse_std)
        return grad_x.mul_(scale).to(grad.dtype), grad_weight, grad_bias, None
