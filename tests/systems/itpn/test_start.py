"""Weights that a task starts from, in the containers of other tools."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import config, options

from tenfold.systems.itpn import pretrained
from tenfold.systems.itpn.networks import build
from tenfold.systems.itpn.official import official_keys


@pytest.mark.usefixtures("generated_only")
def test_containers_of_other_tools(tmp_path: Path) -> None:
    cfg = config("itpn", "demo", options("itpn"))
    network = build(cfg, "pretrain")
    own = network.state_dict()
    state = {key: own[name].clone() for key, name in official_keys(network).items()}
    lightning = {f"model.{key}": value for key, value in state.items()}
    torch.save({"state_dict": lightning, "epoch": 1}, tmp_path / "lightning.ckpt")
    torch.save({"state_dict_ema": state}, tmp_path / "ema.pth")
    torch.save({"model_state_dict": state}, tmp_path / "plain.pth")
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "x.safetensors")
    for name in ("lightning.ckpt", "ema.pth", "plain.pth", "x.safetensors"):
        given = pretrained.read(str(tmp_path / name))
        assert given.model.embed_dim == cfg.model.embed_dim == 16
        assert torch.equal(given.state["patch_embed.proj.weight"], state["patch_embed.proj.weight"])
    (tmp_path / "x.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(ValueError, match=r"x\.safetensors is no readable safetensors file"):
        pretrained.read(str(tmp_path / "x.safetensors"))
