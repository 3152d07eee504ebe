"""Transformers as encoders: begun from files of all layouts, trained, measured, used, exported."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import config, options

import tenfold
from tenfold.core import dist, loop
from tenfold.nn.hivit import HiViT, Shape
from tenfold.nn.vit import Vit, VitShape
from tenfold.runner.export import export_checked
from tenfold.runner.weights import completed, construct, save_weights
from tenfold.systems import system_class
from tenfold.systems.dts.config import Transformer
from tenfold.systems.dts.system import Dts

pytestmark = pytest.mark.usefixtures("generated_only")
VIT = VitShape(dim=16, depth=5, heads=2, patch_size=14, grid=3, hidden=24, registers=1)
HIVIT = Shape(
    embed_dim=32, depths=(1, 1, 2), num_heads=2, grid=(3, 3), bias="shared", has_class_token=True,
    fast=True, layer_scale=0.1, ratio=3.0,
)  # fmt: skip
PARTS = {
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "pos_embed": "embeddings.position_embeddings", "cls_token": "embeddings.cls_token",
    "register_tokens": "embeddings.register_tokens", "blocks.": "encoder.layer.",
    "attn.proj": "attention.output.dense", "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}  # fmt: skip
"""Official names of DINOv2, and transformers'."""


def of_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {}
    for key, value in state.items():
        name = key.replace("norm.", "layernorm.") if key.startswith("norm.") else key
        for ours, theirs in PARTS.items():
            name = name.replace(ours, theirs)
        parts = ("query", "key", "value") if "attn.qkv" in key else ("",)
        for part, some in zip(parts, value.chunk(len(parts)), strict=True):
            found[name.replace("attn.qkv", f"attention.attention.{part}")] = some.contiguous()
    return found


def dino(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file of the official code."""
    state = Vit(VIT).state_dict()
    torch.save({**state, "mask_token": torch.zeros(1, 16)}, folder / "dinov2.pth")
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": 2}))
    return folder / "dinov2.pth", state


def saved_by_transformers(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    state = Vit(VIT).state_dict()
    save_file(of_transformers(state), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": 2}))
    return folder, state


def fast_itpn(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A fine-tuned classifier of the official code, with convolutions where ours are linear."""
    state = HiViT(HIVIT).state_dict()
    theirs = {"pos_embed" if k == "absolute_pos_embed" else k: v for k, v in state.items()}
    for key, value in theirs.items():
        if key in ("blocks.1.reduction.weight", "blocks.3.reduction.weight"):
            theirs[key] = value.unflatten(1, (2, 2, -1)).permute(0, 3, 2, 1)
        elif re.fullmatch(r"blocks\.[02]\.mlp\.fc\d\.weight", key):
            theirs[key] = value[:, :, None, None]
    theirs |= {"head.weight": torch.zeros(5, 32), "fc_norm.weight": torch.ones(32)}
    torch.save({"model": theirs}, folder / "fast_itpn.pt")
    return folder / "fast_itpn.pt", state


def itpn_run(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A run that was pre-trained with its pyramid, as far as weights go."""
    made = construct(system_class("itpn"), config("itpn", "demo", options("itpn")))
    save_weights(folder / "weights.safetensors", "itpn", made)
    return folder, made.model["pretrain"].backbone.state_dict()


STARTS: dict[str, tuple[str, Callable[[Path], tuple[Path, dict[str, torch.Tensor]]]]] = {
    "dino": ("vit", dino), "transformers": ("vit", saved_by_transformers),
    "fast-itpn": ("hivit", fast_itpn), "run": ("hivit", itpn_run),
}  # fmt: skip


def begun(encoder: str, start: Path, *words: str) -> Dts:
    words = ("--model.encoder", encoder, "--start", str(start), "--steps", "2", *words)
    return Dts(config("dts", "demo", [*options("dts"), *words]))


@pytest.mark.parametrize("name", STARTS)
def test_an_encoder_from_everywhere_is_trained_measured_and_used(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder, make = STARTS[name]
    (tmp_path / "start").mkdir()
    start, state = make(tmp_path / "start")
    system = begun(encoder, start, "--host.name", "daformer", "--host.feature-weight", "0.1")
    next(system.stages())
    for network in system.model.names():
        own = system.model.named(network).backbone.state_dict()
        assert own.keys() == state.keys()
        assert all(torch.equal(own[key], value) for key, value in state.items()), network
    save_weights(tmp_path / "weights.safetensors", "dts", system)
    ours = str(tmp_path / "weights.safetensors")
    again = completed(Dts, replace(system.cfg, start=ours, transformer=Transformer()))
    assert (again.model, again.transformer) == (system.cfg.model, system.cfg.transformer)
    world = dist.World(0, 1, torch.device("cpu"))
    loop.train(system.stages(), system.cfg.loop, world, tmp_path / "run", 0)
    assert 0 <= system.evaluate().metrics["iou/deployed/mIoU"] <= 100
    picture = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    system.predict(tmp_path / "a.png", tmp_path / "out")
    assert np.asarray(Image.open(tmp_path / "out" / "a-labels.png")).shape == (45, 70)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dino", "fast-itpn"])
def test_a_network_with_an_encoder_of_others_is_exported(name: str, tmp_path: Path) -> None:
    encoder, make = STARTS[name]
    start, _ = make(tmp_path)
    system = begun(encoder, start)
    next(system.stages())
    assert export_checked(system.export(), "torch", tmp_path / "a.pt2") < 1e-4


@pytest.mark.parametrize("encoder", ["vit", "hivit"])
@pytest.mark.parametrize("host", ["mic", "hrda"])
def test_transformers_within_every_host(host: str, encoder: str, tmp_path: Path) -> None:
    start, _ = dino(tmp_path) if encoder == "vit" else fast_itpn(tmp_path)
    words = ["--host.name", host, "--host.feature-weight", "0.1", "--host.feature-share", "0.01"]
    words += ["--host.things", "road", "building", "sky"]
    if host == "hrda":
        words += ["--data.crop", "64", "64", "--model.detail", "32", "32"]
        words += ["--data.source-size", "64", "80", "--data.target-size", "64", "80"]
    *_, stage = begun(encoder, start, *words).stages()
    stage.model.train()
    losses = stage.training_step(stage.model, stage.batches(0), lambda value: value.backward())
    assert losses["loss"].isfinite() and losses["loss/features1"] >= 0
    assert ("loss/masked2" in losses) == (host == "mic")
    unused = [key for key, p in stage.model.named_parameters() if p.grad is None]
    assert not unused


def test_weights_that_do_not_fit_are_said_in_words(tmp_path: Path) -> None:
    start, state = dino(tmp_path)
    with pytest.raises(ValueError, match="encoder hivit: its blocks have merges at"):
        begun("hivit", start)
    with pytest.raises(ValueError, match="no Mix Transformer .*--model.encoder hivit or vit"):
        next(begun("mit", start).stages())
    del state["norm.bias"]
    torch.save({**state, "extra": torch.zeros(1)}, start)
    with pytest.raises(ValueError, match=r"unused: extra\n.*missing: backbone.norm.bias"):
        next(begun("vit", start).stages())
    state["blocks.4.attn.qkv.weight"] = torch.zeros(1)
    torch.save(state, start)
    with pytest.raises(ValueError, match=r"blocks.4.attn.qkv.weight is \(1,\), expected \(48, 16"):
        begun("vit", start)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        begun("vit", tmp_path / "nowhere")
    (tmp_path / "run").mkdir()
    run, _ = itpn_run(tmp_path / "run")
    with pytest.raises(ValueError, match="weights of itpn; --model.encoder hivit"):
        begun("vit", run)


def test_a_run_goes_on_without_the_file_that_it_started_from(tmp_path: Path) -> None:
    """Sizes are part of its configuration."""
    start, _ = dino(tmp_path)
    made = begun("vit", start)
    save_weights(tmp_path / "weights.safetensors", "dts", made)
    start.unlink()
    again = tenfold.load(tmp_path / "weights.safetensors")
    assert again.cfg.transformer.patch_size == 14 and again.cfg.model.depths == (1, 1, 1, 2)
