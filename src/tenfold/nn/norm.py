"""Batch normalisation of every (node, feature) pair, with statistics over all processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Features = Float[Tensor, "*channel node batch width"]


def scale_and_shift(x: Features, scale: Tensor, shift: Tensor) -> Features:
    """x * scale + shift, with one number for every node and feature."""
    shape = (x.shape[-3], 1, x.shape[-1])
    return torch.addcmul(shift.view(shape), x, scale.view(shape)).to(x.dtype)


class Affine(nn.Module):
    """A scale and a shift for every node and feature: what BatchNorm is at inference."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Float[Tensor, " feature"], shift: Float[Tensor, " feature"]) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: Features) -> Features:
        """Scale and shift."""
        return scale_and_shift(x, self.scale, self.shift)


class BatchNorm(nn.Module):
    """`nn.BatchNorm1d(num_nodes * width)` on node-major features: same state, same numbers.

    Statistics pool batch and channels, in training of all processes of torch.distributed together
    (torch's SyncBatchNorm refuses CPU tensors), so a run on two processes equals a run on one.
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

    def forward(self, x: Features) -> Features:
        """Normalise with the statistics of the samples; at inference with the running ones."""
        if not self.training:
            return scale_and_shift(x, *self._scale_and_shift())
        shape = (x.shape[-3], 1, x.shape[-1])
        y, mean, var, count = _Standardise.apply(
            x, self.weight.view(shape), self.bias.view(shape), self.eps
        )
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.flatten(), self.momentum)
            unbiased = var.flatten() * (count / (count - 1))
            self.running_var.lerp_(unbiased, self.momentum)
        return y

    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def folded(self) -> Affine:
        """The running statistics, weight and bias as one scale and one shift."""
        return Affine(*self._scale_and_shift())


def _several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_sum(x: Tensor) -> Tensor:
    """Sum over the processes, where there are several."""
    if _several_processes():
        dist.all_reduce(x)
    return x


def world_mean(x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Mean over the processes, without gradient: a normaliser of losses that are of them all."""
    count = dist.get_world_size() if _several_processes() else 1
    return world_sum(x.detach().clone()) / count


def _feature_sum(x: Tensor) -> Tensor:
    """Sum over channels and batch."""
    return x.sum((*range(x.ndim - 3), -2), keepdim=True).view(x.shape[-3], 1, x.shape[-1])


class _Standardise(torch.autograd.Function):
    """(x - mean) / std * weight + bias with batch statistics, and its gradient."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        wide = x.to(weight.dtype)  # statistics of bfloat16 in float32
        samples = x.numel() / weight.numel()
        count = world_sum(torch.tensor(samples, dtype=weight.dtype, device=x.device))
        mean = world_sum(_feature_sum(wide)) / count
        centred = wide - mean
        var = world_sum(_feature_sum(centred.square())) / count
        inverse_std = (var + eps).rsqrt()
        scale = weight * inverse_std
        ctx.save_for_backward(centred, inverse_std, scale, count)
        ctx.mark_non_differentiable(mean, var, count)
        return torch.addcmul(bias, centred, scale).to(x.dtype), mean, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, *_):
        centred, inverse_std, scale, count = ctx.saved_tensors
        wide = grad.to(centred.dtype)
        grad_bias = _feature_sum(wide)
        grad_weight = _feature_sum(wide * centred) * inverse_std
        # The gradient of x needs the sums of all processes; those of the parameters DDP averages.
        sums = world_sum(torch.stack([grad_bias, grad_weight])) / count
        grad_x = torch.addcmul(sums[0], centred, sums[1] * inverse_std)
        torch.sub(wide, grad_x, out=grad_x).mul_(scale)
        return grad_x.to(grad.dtype), grad_weight, grad_bias, None


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose statistics in training are of all processes together.

    torch's SyncBatchNorm refuses CPU tensors. In one process this is torch's own, which is faster;
    so it is with a momentum of None, the mean over batches, which each process takes for itself:
    who counts so shows all batches to all of them.
    """

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Normalise with the statistics of the batch; at inference with the running ones."""
        if not self.training or self.momentum is None or not _several_processes():
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        columns = x.flatten(2).unsqueeze(-1)
        shape = (x.shape[1], 1, 1)
        y, mean, var, count = _Standardise.apply(
            columns, self.weight.view(shape), self.bias.view(shape), self.eps
        )
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.flatten(), self.momentum)
            self.running_var.lerp_(var.flatten() * (count / (count - 1)), self.momentum)
        return y.view(x.shape)
