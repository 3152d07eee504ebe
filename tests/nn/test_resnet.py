"""The residual networks: size, shapes, names of layers, first weights, number formats."""

import pytest
import torch
from torch import nn

from tenfold.nn.resnet import ResNet

FORMATS = [torch.contiguous_format, torch.channels_last]


def num_parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def published_names(stages: int, blocks: int) -> set[str]:
    """Keys of torchvision's networks of basic blocks, less the classifier's."""

    def norm(name: str) -> set[str]:
        leaves = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return {f"{name}.{leaf}" for leaf in leaves}

    names = {"conv1.weight"} | norm("bn1")
    for stage in range(1, stages + 1):
        for block in range(blocks):
            start = f"layer{stage}.{block}"
            for i in (1, 2):
                names |= {f"{start}.conv{i}.weight"} | norm(f"{start}.bn{i}")
        if stage > 1:
            start = f"layer{stage}.0.downsample"
            names |= {f"{start}.0.weight"} | norm(f"{start}.1")
    return names


@pytest.mark.parametrize(
    ("kind", "count", "stages", "blocks", "dim"),
    [("resnet20", 271_824, 3, 3, 64), ("resnet18", 11_176_512, 4, 2, 512)],
)
def test_size_and_names(kind, count, stages, blocks, dim) -> None:
    net = ResNet(kind)
    assert net.dim == dim
    assert set(net.state_dict()) == published_names(stages, blocks)
    # ResNet-18 of 1000 classes has 11,689,512; the classifier has 513 thousand of them.
    assert num_parameters(net) == count
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize(
    ("kind", "side", "sides"),
    [
        ("resnet20", 32, (32, 16, 8)),
        ("resnet20", 84, (84, 42, 21)),
        ("resnet20", 33, (33, 17, 9)),
        ("resnet18", 32, (8, 4, 2, 1)),
        ("resnet18", 84, (21, 11, 6, 3)),
        ("resnet18", 224, (56, 28, 14, 7)),
    ],
)
def test_maps_and_features(kind, side, sides, memory) -> None:
    torch.manual_seed(0)
    net = ResNet(kind, 4).eval().to(memory_format=memory)
    x = torch.randn(2, 3, side, side).contiguous(memory_format=memory)
    seen: list[torch.Tensor] = []  # copies, so that nothing later can change them
    for stage in net.stages:
        net.get_submodule(stage).register_forward_hook(lambda *call: seen.append(call[2].clone()))
    with torch.no_grad():
        maps, features = net.maps(x), net(x)
    widths = [4 * 2**i for i in range(len(sides))]
    assert [tuple(m.shape) for m in maps] == [
        (2, w, s, s) for w, s in zip(widths, sides, strict=True)
    ]
    assert maps[-1].is_contiguous(memory_format=memory)
    assert features.shape == (2, net.dim) == (2, widths[-1])
    torch.testing.assert_close(features, maps[-1].flatten(2).mean(2))
    assert features.min() >= 0  # the calibration unit relies on it
    for copy, kept in zip(seen, maps, strict=False):
        assert torch.equal(copy, kept)


def test_pictures_need_not_be_square_and_do_not_meet() -> None:
    torch.manual_seed(0)
    net = ResNet("resnet20", 4).double().eval()
    x = torch.randn(3, 3, 20, 44, dtype=torch.float64)
    assert [tuple(m.shape[2:]) for m in net.maps(x)] == [(20, 44), (10, 22), (5, 11)]
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]))
    assert not torch.allclose(net(x)[0], net(x)[1])


def test_shortcuts_are_added() -> None:
    """With the last norm of each block at zero, a block is its shortcut."""
    torch.manual_seed(0)
    net = ResNet("resnet20", 4).eval()
    for block in (b for stage in net.stages for b in net.get_submodule(stage)):
        nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 3, 16, 16)
    y = net.bn1(net.conv1(x)).relu()
    maps = net.maps(x)
    torch.testing.assert_close(maps[0], y)
    torch.testing.assert_close(maps[1], net.layer2[0].downsample(y).relu())
    assert net.layer1[0].downsample is None and net.layer2[1].downsample is None


@pytest.mark.parametrize("kind", ["resnet20", "resnet18"])
def test_first_weights(kind) -> None:
    torch.manual_seed(0)
    for name, module in ResNet(kind).named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is None
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            weight, want = module.weight.detach(), (2 / fan_out) ** 0.5
            count = weight.numel()
            assert abs(float(weight.std()) / want - 1) < 4 / (2 * count) ** 0.5, name
            assert abs(float(weight.mean())) < 4 * want / count**0.5, name
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and (module.bias == 0).all(), name
            assert (module.running_mean == 0).all() and (module.running_var == 1).all(), name


def test_a_limit_on_the_stride_dilates_instead() -> None:
    """The cells of the small maps are those of the plain network, computed at more places."""
    torch.manual_seed(0)
    plain = ResNet("resnet18", 4).double().eval()
    dense = ResNet("resnet18", 4, output_stride=8).double().eval()
    dense.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    small, large = plain.maps(x), dense.maps(x)
    assert [tuple(m.shape[1:]) for m in large] == [
        (4, 16, 24), (8, 8, 12), (16, 8, 12), (32, 8, 12)
    ]  # fmt: skip
    assert plain.widths == dense.widths == (4, 8, 16, 32)
    for few, many, step in zip(small, large, (1, 1, 2, 4), strict=True):
        torch.testing.assert_close(few, many[:, :, ::step, ::step])
    with pytest.raises(ValueError, match="output_stride is 2, but the stem of resnet18 has 4"):
        ResNet("resnet18", output_stride=2)


def test_width() -> None:
    assert num_parameters(ResNet("resnet20", 16)) == num_parameters(ResNet("resnet20"))
    assert num_parameters(ResNet("resnet18", 64)) == num_parameters(ResNet("resnet18"))
    narrow = ResNet("resnet20", 5)
    assert (narrow.dim, narrow.conv1.weight.shape[0]) == (20, 5)


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize("kind", ["resnet20", "resnet18"])
def test_number_formats(kind, memory) -> None:
    """float32 and bfloat16 agree with float64, and bfloat16 trains every weight."""
    torch.manual_seed(0)
    net = ResNet(kind, 4).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        single = net(x)
        exact = net.double()(x.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-5)
    net = net.float().train().to(memory_format=memory)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net.eval()(x.contiguous(memory_format=memory)).float()
        loss = net.train()(x.contiguous(memory_format=memory)).float().square().mean()
    loss.backward()
    error = (mixed - single).norm() / single.norm()
    assert 1e-6 < error < 0.03  # it did run in bfloat16
    for name, parameter in net.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name
