"""Published layouts: files made under official names are read whole, and say what does not fit."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from systems.usage.test_networks import MODELS
from torch import Tensor

from tenfold.systems.usage import official
from tenfold.systems.usage.backbones import Model
from tenfold.systems.usage.networks import build

State = dict[str, Tensor]


def norm(name: str, width: int, counter: bool = True) -> State:
    found = {f"{name}.{part}": torch.rand(width) for part in
             ("weight", "bias", "running_mean", "running_var")}  # fmt: skip
    return found | ({f"{name}.num_batches_tracked": torch.tensor(3)} if counter else {})


def resnet38(width: int = 1, classes: int = 0) -> State:
    """PSA's 229 tensors (network/resnet38d.py), with a classifier if there are classes."""
    state: State = {"conv1a.weight": torch.randn(width, 3, 3, 3)}
    channels = width
    for stage, blocks in enumerate((3, 3, 6, 3, 1, 1), 2):
        out = width * 2 ** (stage - 1)
        for number in range(blocks):
            name = f"b{stage}" + (f"_{number}" if number else "")
            middle = out // 2 if stage == 5 else out
            widths = [(channels, middle, 3), (middle, out, 3)]
            if stage > 5:
                widths = [(channels, out // 4, 1), (out // 4, out // 2, 3), (out // 2, out, 1)]
            for branch, (a, b, side) in zip(("2a", "2b1", "2b2"), widths, strict=False):
                state |= norm(f"{name}.bn_branch{branch}", a)
                state[f"{name}.conv_branch{branch}.weight"] = torch.randn(b, a, side, side)
            if not number:
                state[f"{name}.conv_branch1.weight"] = torch.randn(out, channels, 1, 1)
            channels = out
    state |= norm("bn7", channels)
    return state | ({"fc8.weight": torch.randn(classes, channels, 1, 1)} if classes else {})


def as_mxnet(state: State) -> State:
    """Names of ilsvrc-cls_rna-a1, whose fixed norms have no counters."""
    parts = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean",
             "running_var": "moving_var"}  # fmt: skip
    found: State = {"arg:linear1000_weight": torch.zeros(2, 2)}
    for key, value in state.items():
        *path, part = key.split(".")
        if part == "num_batches_tracked":
            continue
        if path == ["conv1a"]:
            found["arg:conv1a_weight"] = value
        elif path == ["bn7"]:
            found[f"aux:bn7_{parts[part]}"] = value
        else:
            block, layer = path
            kind, branch = layer.split("_")
            stage, _, number = block[1:].partition("_")
            label = f"{stage}b{number}" if number else f"{stage}a"
            end = part if kind == "conv" else parts[part]
            found[f"arg:{'res' if kind == 'conv' else 'bn'}{label}_{branch}_{end}"] = value
    return found


def resnet50(width: int = 2, counter: bool = True) -> State:
    state: State = {"conv1.weight": torch.randn(width, 3, 7, 7)} | norm("bn1", width, counter)
    channels = width
    for stage, blocks in enumerate((1, 2, 1, 1)):
        planes = width * 2**stage
        for number in range(blocks):
            name = f"layer{stage + 1}.{number}"
            for part, (a, b, side) in enumerate(
                ((channels, planes, 1), (planes, planes, 3), (planes, 4 * planes, 1)), 1
            ):
                state[f"{name}.conv{part}.weight"] = torch.randn(b, a, side, side)
                state |= norm(f"{name}.bn{part}", b, counter)
            if not number:
                state[f"{name}.downsample.0.weight"] = torch.randn(4 * planes, channels, 1, 1)
                state |= norm(f"{name}.downsample.1", 4 * planes, counter)
            channels = 4 * planes
    return state


def irn(state: State, classes: int) -> State:
    """Every tensor under several names, as IRN's module registers them."""
    found = {f"resnet50.{key}": value for key, value in state.items()}
    for key, value in state.items():
        if key.startswith("layer2."):
            found[f"stage2.0.{key.removeprefix('layer2.')}"] = value
            found[f"backbone.1.0.{key.removeprefix('layer2.')}"] = value
    weight = torch.randn(classes, 64, 1, 1)
    return found | {"classifier.weight": weight, "newly_added.0.weight": weight}


def deit(dim: int = 16, depth: int = 2, grid: int = 3, tokens: int = 1, classes: int = 10) -> State:
    state = {
        "cls_token": torch.randn(1, tokens, dim), "norm.weight": torch.rand(dim),
        "pos_embed": torch.randn(1, tokens + grid**2, dim), "norm.bias": torch.rand(dim),
        "patch_embed.proj.weight": torch.randn(dim, 3, 8, 8),
        "patch_embed.proj.bias": torch.randn(dim),
        "head.weight": torch.randn(classes, dim), "head.bias": torch.randn(classes),
    }  # fmt: skip
    for i in range(depth):
        for name, out, into in (("attn.qkv", 3 * dim, dim), ("attn.proj", dim, dim),
                                ("mlp.fc1", 4 * dim, dim), ("mlp.fc2", dim, 4 * dim)):  # fmt: skip
            state[f"blocks.{i}.{name}.weight"] = torch.randn(out, into)
            state[f"blocks.{i}.{name}.bias"] = torch.randn(out)
        for name in ("norm1", "norm2"):
            state |= {f"blocks.{i}.{name}.{part}": torch.rand(dim) for part in ("weight", "bias")}
    return state


def mctformer(classes: int, plus: bool = False) -> State:
    state = deit(tokens=classes, classes=classes)
    state["head.weight"] = torch.randn(classes, 16, 3, 3)
    if plus:
        state |= {"pos_embed_cls": torch.randn(1, classes, 16),
                  "pos_embed_pat": torch.randn(1, 9, 16)}  # fmt: skip
    return state


def efficientnet() -> State:
    """The port's names, of the smallest width."""
    own = build(Model("efficientnet-lite0", width=8), 3).body.state_dict()
    found: State = {"_fc.weight": torch.zeros(5, 320), "_fc.bias": torch.zeros(5)}
    for key, value in own.items():
        parts = key.split(".")
        if parts[0] == "blocks":
            parts[2] = f"_{parts[2]}"
        found[".".join([f"_{parts[0]}", *parts[1:]])] = torch.rand_like(value.float())
    return found


def filled(tmp_path: Path, content: object, asked: Model, classes: int = 3):
    """Network and account of a file."""
    path = tmp_path / "file.pth"
    torch.save(content, path)
    network = build(official.describe(path, asked), classes)
    return network, official.load(network, path)


def test_psa_and_seam_and_imagenet(tmp_path: Path) -> None:
    own = resnet38(classes=3)
    assert len(resnet38()) == 228 and len(own) == 229
    network, account = filled(tmp_path, own, Model("resnet38"))
    assert account.is_complete and not account.ignored and len(account.state) == 229
    assert torch.equal(network.head.weight, own["fc8.weight"])
    seam = resnet38(classes=4) | {"f8_3.weight": torch.zeros(2, 2), "f9.weight": torch.zeros(2, 2)}
    network, account = filled(tmp_path, seam, Model("resnet38"))
    assert account.is_complete and {key for key, _ in account.ignored} == {
        "f8_3.weight",
        "f9.weight",
    }
    assert torch.equal(network.head.weight, seam["fc8.weight"][1:])
    raw = as_mxnet({key: value for key, value in own.items() if not key.startswith("fc8")})
    network, account = filled(tmp_path, raw, Model("resnet38"))
    assert account.is_complete
    assert torch.equal(network.body.b4_5.bn_branch2b1.running_var,
                       own["b4_5.bn_branch2b1.running_var"])  # fmt: skip
    assert "head.weight" in {key for key, _ in account.ignored}


def test_a_classifier_of_other_classes_starts_anew(tmp_path: Path) -> None:
    network, account = filled(tmp_path, resnet38(classes=20), Model("resnet38"))
    assert account.is_complete and network.head.weight.shape[0] == 3
    assert dict(account.ignored)["fc8.weight"] == official.CLASSIFIER


def test_a_row_of_background_is_left_out_of_files_of_seam_alone(tmp_path: Path) -> None:
    """Of others nobody knows which of the classes is one too many."""
    for state, name in ((resnet38(classes=4), "resnet38"), (irn(resnet50(), 4), "resnet50")):
        _, account = filled(tmp_path, state, Model(name))  # type: ignore[arg-type]
        assert [key for key, *_ in account.mismatched] == ["head.weight"]
        with pytest.raises(ValueError, match=r"head\.weight is \(4, \d+, 1, 1\), expected \(3, "):
            account.require_start("file.pth", allow_missing=False)
        with pytest.warns(UserWarning, match="starts anew what does not fit"):
            account.require_start("file.pth", allow_missing=True)
    two = resnet38(classes=3) | {"f8_3.weight": torch.zeros(2, 2), "f9.weight": torch.zeros(2, 2)}
    _, account = filled(tmp_path, two, Model("resnet38"))
    assert dict(account.ignored)["fc8.weight"] == official.CLASSIFIER


def test_irn_and_torchvision(tmp_path: Path) -> None:
    own = resnet50()
    network, account = filled(tmp_path, irn(own, 3), Model("resnet50"))
    assert account.is_complete and network.model.depths == (1, 2, 1, 1)
    assert torch.equal(network.body.layer2[1].conv3.weight, own["layer2.1.conv3.weight"])
    assert {why for _, why in account.ignored} == {"the same tensors under another name"}
    vision = resnet50(counter=False) | {"fc.weight": torch.zeros(9, 64), "fc.bias": torch.zeros(9)}
    network, account = filled(tmp_path, vision, Model("resnet50"))
    assert account.is_complete
    with pytest.raises(ValueError, match="its blocks are those of resnet50"):
        filled(tmp_path, vision, Model("resnet18"))


def test_efficientnet_lite(tmp_path: Path) -> None:
    state = efficientnet()
    network, account = filled(tmp_path, state, Model("efficientnet-lite0"))
    assert account.is_complete and network.model.width == 8
    got = network.body.blocks[3].depthwise_conv.weight
    assert torch.equal(got, state["_blocks.3._depthwise_conv.weight"])


def test_deit_as_itself_and_as_mctformer(tmp_path: Path) -> None:
    own = deit()
    content = {"model": own, "args": Namespace(lr=1)}
    network, account = filled(tmp_path, content, Model("deit", heads=2))
    assert account.is_complete and network.model.grid == 3 and network.body.shape.depth == 2
    assert torch.equal(network.body.pos_embed, own["pos_embed"])
    asked = Model("mctformer", heads=2, grid=4)
    network, account = filled(tmp_path, content, asked)
    assert account.is_complete and network.model.grid == 4
    assert torch.equal(network.body.cls_token, own["cls_token"].repeat(1, 3, 1))
    assert torch.equal(network.body.pos_embed[:, 2], own["pos_embed"][:, 0])
    assert {key for key, _ in account.ignored} == {
        "norm.weight", "norm.bias", "head.weight", "head.bias"
    }  # fmt: skip
    asked = Model("mctformer-plus", heads=2, grid=6)
    network, account = filled(tmp_path, content, asked)
    patches = network.body.pos_embed_pat.unflatten(1, (6, 6))
    assert torch.equal(patches[:, 4, 3], own["pos_embed"][:, 1 + 3 * 2 + 1])
    assert account.is_complete


def test_distilled_deit(tmp_path: Path) -> None:
    own = deit()
    own["pos_embed"] = torch.randn(1, 11, 16)
    own |= {"dist_token": torch.randn(1, 1, 16), "head_dist.weight": torch.zeros(10, 16)}
    network, account = filled(tmp_path, own, Model("deit", heads=2))
    assert account.is_complete
    assert torch.equal(network.body.pos_embed[:, 1:], own["pos_embed"][:, 2:])


@pytest.mark.parametrize("plus", [False, True])
def test_mctformer(tmp_path: Path, plus: bool) -> None:
    own = mctformer(3, plus)
    asked = Model("mctformer-plus" if plus else "mctformer", heads=2)
    network, account = filled(tmp_path, {"model": own}, asked)
    assert account.is_complete and network.model.grid == 3
    assert torch.equal(network.head.weight, own["head.weight"])
    _, account = filled(tmp_path, {"model": own}, asked, classes=5)
    assert {key for key, *_ in account.mismatched} >= {"body.cls_token"}
    assert "shape: body.cls_token is (1, 3, 16), expected (1, 5, 16)" in account.report()


def test_hivit_of_an_official_file(tmp_path: Path) -> None:
    body = build(MODELS["hivit"], 3).body.state_dict()
    own = {key: torch.randn_like(value) for key, value in body.items()}
    extra = {"mask_token": torch.zeros(1, 1, 32), "align_dim_16to8.weight": torch.zeros(32, 16)}
    asked = replace(MODELS["hivit"], width=0, depths=(), heads=2, grid=1, patch_size=16)
    network, account = filled(tmp_path, {"model": own | extra}, asked)
    assert account.is_complete and network.model.depths == (1, 1, 1)
    assert torch.equal(network.body.absolute_pos_embed, own["absolute_pos_embed"])


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    own = resnet38(classes=3)
    del own["b3.conv_branch1.weight"]
    own["surprise.weight"] = torch.zeros(1)
    _, account = filled(tmp_path, own, Model("resnet38"))
    assert account.missing == ["body.b3.conv_branch1.weight"]
    assert account.unused == ["surprise.weight"] and not account.is_complete


def test_files_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"file.pth: it has no conv1a.weight, so it is another"):
        filled(tmp_path, resnet50(), Model("resnet38"))
    with pytest.raises(ValueError, match="cannot be read as tensors alone"):
        filled(tmp_path, {"model": Path("x")}, Model("resnet38"))
    with pytest.raises(FileNotFoundError, match="no file .*absent.pth; give weights"):
        official.describe(tmp_path / "absent.pth", Model("resnet38"))
    (tmp_path / "evil.pt").write_bytes(b"evil")
    with pytest.raises(ValueError, match=r"^[^:]*evil\.pt cannot be read as tensors alone"):
        official.describe(tmp_path / "evil.pt", Model("resnet38"))
    (tmp_path / "run").mkdir()
    with pytest.raises(FileNotFoundError, match="weights.safetensors"):
        official.read(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "state", "key", "value", "message"),
    [
        ("deit", deit(), "blocks.1.attn.qkv.weight", torch.zeros(1), r"qkv.weight is of .*\(1,\)"),
        ("deit", deit(), "blocks.1.mlp.fc1.weight", None, "it has no blocks.1.mlp.fc1.weight"),
        ("resnet50", resnet50(), "conv1.weight", torch.zeros(512, 3, 1, 1), r"\(512, 512, 3, 3\)"),
        ("resnet50", resnet50(), "layer2.1.conv2.weight", torch.zeros(1), "layer2.1.conv2.weight"),
        ("resnet38", resnet38(), "conv1a.weight", torch.zeros(512, 3, 1, 1), r"\(32768, 16384,"),
        ("efficientnet-lite0", efficientnet(), "_conv_stem.weight", torch.zeros(512, 3, 1, 1),
         r"_conv_head.weight is of .*expected \(20480, 5120, 1, 1\)"),
    ],
)  # fmt: skip
def test_a_small_file_asks_for_no_large_network(
    name: str, state: State, key: str, value: Tensor | None, message: str
) -> None:
    changed = {k: v for k, v in (state | {key: value}).items() if v is not None}
    official.described(state, Model(name))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        official.described(changed, Model(name))  # type: ignore[arg-type]
