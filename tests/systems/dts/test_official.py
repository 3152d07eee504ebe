"""Official checkpoints: three networks in one file, encoders alone, and what is not read."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tenfold.nn.aspp import DaformerHead
from tenfold.nn.hrda import Hrda
from tenfold.nn.mit import MixTransformer
from tenfold.nn.segformer import SegformerHead
from tenfold.systems.dts.official import convert, describe, read_official

DIMS = (8, 16, 40, 64)


def network(kind: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    encoder = MixTransformer(DIMS, (1, 2, 5, 8), (1, 2, 1, 1))
    if kind == "segformer":
        return nn.ModuleDict({"backbone": encoder, "decode_head": SegformerHead(DIMS, 5, 12)})
    head = DaformerHead(DIMS, 5, 6, 12, pool=kind == "pooled")
    if kind == "hrda":
        return Hrda(encoder, head, DaformerHead(DIMS, 5, 7, 7, ()), (32, 32))
    return nn.ModuleDict({"backbone": encoder, "decode_head": head})


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def logits(module: nn.Module, images: Tensor) -> Tensor:
    module.eval()
    with torch.no_grad():
        if isinstance(module, Hrda):
            return module(images).fused
        return module["decode_head"](module["backbone"](images))


def training_file(path: Path, kind: str) -> dict[str, nn.Module]:
    """A file as DAFormer saves it while it trains, and the student and the teacher in it."""
    both = {"student": network(kind, 1), "teacher": network(kind, 2)}
    state = {f"model.{k}": v for k, v in both["student"].state_dict().items()}
    state |= {f"ema_model.{k}": v for k, v in both["teacher"].state_dict().items()}
    state |= {f"imnet_model.{k}": v for k, v in network(kind, 3).state_dict().items()}
    meta = {
        "iter": 40000,
        "best_score": np.float64(0.683),
        "CLASSES": ["road"],
        "seed": np.int64(1),
    }
    torch.save({"meta": meta, "state_dict": state, "optimizer": {"param_groups": []}}, path)
    return both


@pytest.mark.parametrize("kind", ["daformer", "hrda"])
def test_student_and_teacher_of_a_training_file(kind: str, tmp_path: Path) -> None:
    both = training_file(tmp_path / "latest.pth", kind)
    images = torch.randn(1, 3, 64, 64)
    ours = network(kind, 4)
    for which, official in both.items():
        state = read_official(tmp_path / "latest.pth", which)
        layout = describe(state)
        assert (layout.head, layout.num_classes, layout.channels) == (kind, 5, 6)
        assert layout.encoder == (DIMS, (1, 2, 5, 8), (1, 2, 1, 1), (8, 4, 2, 1))
        assert (layout.embed_dim, layout.ratio, layout.separable, layout.pool) == (12, 4, True, 0)
        assert (layout.attention_dim, layout.attention_classes) == (
            (7, 5) if kind == "hrda" else (0, 0)
        )
        account = convert(state, shapes(ours))
        reasons = [reason for _, reason in account.ignored]
        other = "teacher" if which == "student" else "student"
        count = len(ours.state_dict())
        assert reasons.count(f"the {other}; the {which} was asked for") == count
        assert reasons.count("the frozen ImageNet network of the feature distance") == count
        ours.load_state_dict(account.require_complete())
        torch.testing.assert_close(logits(ours, images), logits(official, images), rtol=0, atol=0)


def test_segformer_and_the_variants_of_daformer(tmp_path: Path) -> None:
    official = network("segformer", 1)
    state = official.state_dict() | {"decode_head.conv_seg.weight": torch.ones(5, 12, 1, 1)}
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "segformer.pth")
    found = read_official(tmp_path / "segformer.pth")
    assert (describe(found).head, describe(found).channels) == ("segformer", 12)
    account = convert(found, shapes(official))
    assert account.require_complete() and len(account.ignored) == 1
    pooled = describe(network("pooled", 1).state_dict())
    assert pooled.pool and pooled.dilations == (1, 6, 12, 18)
    with pytest.raises(ValueError, match="has 2 branches of context"):
        describe(nn.ModuleDict({
            "backbone": MixTransformer(DIMS, (1, 2, 5, 8), (1, 1, 1, 1)),
            "decode_head": DaformerHead(DIMS, 5, 6, 12, (1, 6)),
        }).state_dict())  # fmt: skip


def test_an_encoder_alone(tmp_path: Path) -> None:
    ours = network("daformer", 1)
    state = network("daformer", 2)["backbone"].state_dict()
    extra = {"head.weight": torch.ones(1000, 64), "head.bias": torch.ones(1000)}
    torch.save(state | extra | {"surplus": torch.ones(1)}, tmp_path / "mit_b0.pth")
    found = read_official(tmp_path / "mit_b0.pth")
    layout = describe(found)
    assert (layout.head, layout.name) == ("none", "")
    account = convert(found, shapes(ours))
    assert account.unused == ["surplus"] and not account.missing
    kept = [key for key, reason in account.ignored if reason.startswith("ours")]
    assert set(kept) == {f"decode_head.{key}" for key in ours["decode_head"].state_dict()}
    assert torch.equal(account.state["backbone.norm4.bias"], state["norm4.bias"])


def transformers_name(key: str) -> str:
    """A name as transformers' conversion script writes it (models/segformer)."""
    key = key.replace("backbone.", "segformer.encoder.").replace("norm", "layer_norm")
    for part, other in (
        ("patch_embed", "patch_embeddings."), ("block", "block."), ("linear_c", "linear_c."),
        ("encoder.layer_norm", "encoder.layer_norm."),
    ):  # fmt: skip
        key = re.sub(rf"{part}(\d)", lambda m, other=other: f"{other}{int(m[1]) - 1}", key)
    key = re.sub(r"layer_norm([12])", r"layer_norm_\1", key)
    for part, other in (
        ("attn.q", "attention.self.query"), ("attn.proj", "attention.output.dense"),
        ("attn", "attention.self"), ("fc", "dense"), ("linear_pred", "classifier"),
        ("linear_fuse.conv", "linear_fuse"), ("linear_fuse.bn", "batch_norm"),
    ):  # fmt: skip
        key = key.replace(part, other)
    return key


def test_names_of_transformers(tmp_path: Path) -> None:
    ours, theirs = network("segformer", 1), {}
    for key, value in ours.state_dict().items():
        name = transformers_name(key)
        if ".kv." in name:
            theirs[name.replace(".kv.", ".key.")], theirs[name.replace(".kv.", ".value.")] = (
                part.clone() for part in value.chunk(2)
            )
        else:
            theirs[name] = value
    assert "segformer.encoder.block.1.1.attention.self.layer_norm.weight" in theirs
    assert "segformer.encoder.patch_embeddings.3.layer_norm.bias" in theirs
    assert "decode_head.linear_c.0.proj.weight" in theirs
    save_file(theirs, tmp_path / "model.safetensors")
    encoder = {k.removeprefix("segformer."): v for k, v in theirs.items() if "encoder" in k}
    torch.save(encoder | {"classifier.weight": torch.ones(9, 64)}, tmp_path / "pytorch_model.bin")
    save_file(encoder, tmp_path / "encoder.safetensors")
    account = convert(read_official(tmp_path / "model.safetensors"), shapes(ours))
    assert not account.ignored
    for key, value in account.require_complete().items():
        assert torch.equal(value, ours.state_dict()[key]), key
    alone = convert(read_official(tmp_path / "pytorch_model.bin"), shapes(ours))
    assert alone.is_complete and ("head.weight", "the ImageNet classifier") in alone.ignored
    assert all(key.startswith("backbone.") for key in alone.state)
    assert describe(read_official(tmp_path / "encoder.safetensors")).head == "none"


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_files_that_are_not_read(tmp_path: Path) -> None:
    training_file(tmp_path / "latest.pth", "daformer")
    content = torch.load(tmp_path / "latest.pth", weights_only=False)
    state = content["state_dict"]
    student = {key: value for key, value in state.items() if key.startswith("model.")}
    path = save(tmp_path / "student.pth", student)
    with pytest.raises(ValueError, match=r"student\.pth: it holds no teacher, but student; ask"):
        read_official(path, "teacher")
    path = save(tmp_path / "resnet.pth", {"conv1.weight": torch.ones(1)})
    with pytest.raises(ValueError, match="has no patch_embed1.proj.weight, so no Mix Transformer"):
        read_official(path)
    bad = {key: value for key, value in student.items() if "block2.0." not in key}
    with pytest.raises(ValueError, match=r"blocks of its stage 2 are numbered \[1\], not from 0"):
        read_official(save(tmp_path / "hole.pth", bad))
    bad = student | {"model.backbone.block1.1.attn.q.bias": torch.ones(8)}
    with pytest.raises(ValueError, match="has no backbone.block1.1.attn.q.weight"):
        read_official(save(tmp_path / "blocks that are not there.pth", bad))
    key = "model.backbone.patch_embed4.proj.weight"
    wide = student | {key: torch.ones(99, 40, 3, 3)}
    with pytest.raises(
        ValueError, match=r"attn.q.weight is of shape \(64, 64\), expected \(99, 99"
    ):
        read_official(save(tmp_path / "wider.pth", wide))
    bad = student | {"model.backbone.norm1.bias": torch.full((8,), float("nan"))}
    with pytest.raises(ValueError, match="norm1.bias' holds values that are not finite"):
        read_official(save(tmp_path / "nan.pth", bad))
    with pytest.raises(ValueError, match="holds a list, not a dictionary"):
        read_official(save(tmp_path / "list.pth", [1]))
    with pytest.raises(FileNotFoundError, match="give a .pth of SegFormer"):
        read_official(tmp_path / "nowhere.pth")
