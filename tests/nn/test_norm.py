"""Our BatchNorms equal torch's on one process, and one process on two."""

import sys
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
import torch.distributed as dist

from tenfold.nn.norm import BatchNorm, BatchNorm2d
from tenfold.nn.resnet import ResNet

NODES, WIDTH = 3, 4
Two = dict[str, tuple[Any, Any]]
"""Name of a piece of work -> what it returned on each of two processes."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Two:
    """All work on two processes that are joined by gloo: this file as a script, started once."""
    folder = tmp_path_factory.mktemp("two")
    done = forked.torchrun(2, __file__, folder)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    return {name: (first[name], second[name]) for name in first}


def reference(x: torch.Tensor) -> torch.Tensor:
    """(channel, node, batch, width) as the rows that nn.BatchNorm1d takes."""
    return x.permute(0, 2, 1, 3).reshape(-1, NODES * WIDTH)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_equals_torch(channels, offset) -> None:
    torch.manual_seed(0)
    ours = BatchNorm(NODES * WIDTH).double()
    theirs = torch.nn.BatchNorm1d(NODES * WIDTH).double()
    torch.nn.init.normal_(theirs.weight)
    torch.nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for _ in range(3):
        x = torch.randn(channels, NODES, 5, WIDTH, dtype=torch.float64) + offset
        x.requires_grad_()
        y = x.detach().clone().requires_grad_()
        got, want = ours(x), theirs(reference(y))
        torch.testing.assert_close(reference(got), want)
        weights = torch.randn_like(want)
        (reference(got) * weights).sum().backward()
        (want * weights).sum().backward()
        torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)
    x = torch.randn(channels, NODES, 5, WIDTH, dtype=torch.float64)
    want = theirs.eval()(reference(x))
    torch.testing.assert_close(reference(ours.eval()(x)), want)
    torch.testing.assert_close(ours.folded()(x), ours(x))


def test_gradient_by_differences() -> None:
    norm = BatchNorm(NODES * WIDTH).double()
    x = torch.randn(2, NODES, 3, WIDTH, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, (x,))


def batch_and_weights() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(2, NODES, 6, WIDTH, generator=draw), torch.randn(
        2, NODES, 6, WIDTH, generator=draw
    )


def work(rank: int) -> list[torch.Tensor]:
    x, weights = batch_and_weights()
    part = slice(0, 2) if rank == 0 else slice(2, 6)  # shares of different size
    x = x[:, :, part].clone().requires_grad_()
    norm = BatchNorm(NODES * WIDTH)
    y = norm(x)
    (y * weights[:, :, part]).sum().backward()
    kept = (y, x.grad, norm.weight.grad, norm.running_mean, norm.running_var)
    return [t.detach().clone() for t in kept]


def test_two_processes_equal_one(two: Two) -> None:
    first, second = two["rows"]
    x, weights = batch_and_weights()
    x.requires_grad_()
    norm = BatchNorm(NODES * WIDTH)
    y = norm(x)
    (y * weights).sum().backward()
    torch.testing.assert_close(torch.cat([first[0], second[0]], 2), y)
    torch.testing.assert_close(torch.cat([first[1], second[1]], 2), x.grad)
    torch.testing.assert_close(first[2] + second[2], norm.weight.grad)  # DDP adds them
    for i, want in ((3, norm.running_mean), (4, norm.running_var)):
        torch.testing.assert_close(first[i], want)
        torch.testing.assert_close(second[i], want)


FORMATS = [torch.contiguous_format, torch.channels_last]
CHANNELS = 3


def pictures(memory: torch.memory_format) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    x, weights = torch.randn(2, 5, CHANNELS, 4, 6, generator=draw)
    return (x + 2).contiguous(memory_format=memory), weights


def norm_2d() -> BatchNorm2d:
    draw = torch.Generator().manual_seed(2)
    norm = BatchNorm2d(CHANNELS)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter, generator=draw)
    return norm


def run_2d(norm: torch.nn.Module, x: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
    """Output, gradients, state after one training step, and the output at inference then."""
    x = x.clone().requires_grad_()
    y = norm.train()(x)
    (y * weights).sum().backward()
    after = norm.eval()(x)
    kept = (y, x.grad, after, norm.weight.grad, norm.bias.grad, *norm.state_dict().values())
    return [t.detach().clone() for t in kept]


def work_2d(rank: int) -> list[list[torch.Tensor]]:
    part = slice(0, 2) if rank == 0 else slice(2, 5)  # shares of different size
    found = []
    for memory in FORMATS:
        x, weights = pictures(memory)
        share = x[part].contiguous(memory_format=memory)
        found.append(run_2d(norm_2d(), share, weights[part]))
    return found


def test_pictures_on_two_processes_equal_one(two: Two) -> None:
    first, second = two["pictures"]
    for memory, one, two in zip(FORMATS, first, second, strict=True):
        whole = run_2d(norm_2d(), *pictures(memory))
        for i, want in enumerate(whole):
            if i < 3:  # output, gradient of the pictures, output at inference
                got = torch.cat([one[i], two[i]])
                assert one[i].is_contiguous(memory_format=memory)
            elif i < 5:  # gradients of weight and bias, which DDP adds
                got = one[i] + two[i]
            else:
                got = one[i]
                torch.testing.assert_close(two[i], want)
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("memory", FORMATS)
def test_pictures_on_one_process_are_torchs_own(memory) -> None:
    x, weights = pictures(memory)
    theirs = torch.nn.BatchNorm2d(CHANNELS)
    theirs.load_state_dict(norm_2d().state_dict())
    assert norm_2d()(x).grad_fn.name() == theirs(x).grad_fn.name()
    theirs.load_state_dict(norm_2d().state_dict())
    got, want = run_2d(norm_2d(), x, weights), run_2d(theirs, x, weights)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def resnet_gradient(rank: int) -> list[torch.Tensor]:
    """The gradient (float64) of a ResNet for this rank's half of a batch; rank -1 has all of it."""
    torch.manual_seed(0)
    network = ResNet("resnet20", 4).double()
    images = torch.randn(16, 3, 16, 16, dtype=torch.float64)
    part = slice(0, 16) if rank < 0 else slice(8 * rank, 8 * rank + 8)
    network(images[part]).square().mean().backward()
    return [torch.cat([p.grad.flatten() for p in network.parameters()])]


def test_a_resnet_on_two_processes_equals_one(two: Two) -> None:
    (first,), (second,) = two["resnet"]
    (whole,) = resnet_gradient(-1)
    torch.testing.assert_close((first + second) / 2, whole, rtol=1e-9, atol=1e-12)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found = {"rows": work(rank), "pictures": work_2d(rank), "resnet": resnet_gradient(rank)}
    torch.save(found, Path(sys.argv[1]) / f"{rank}.pt")
    dist.destroy_process_group()
