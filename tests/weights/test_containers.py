"""Checkpoint files of others: wrappers, prefixes, TorchScript archives, hostile content."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tenfold.weights.clip_vit import convert_clip, describe_clip
from tenfold.weights.containers import heads_beside, is_torchscript, read_checkpoint

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


def test_wrappers_and_prefixes(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    for prefix in (
        "",
        "module.",
        "module.encoder.",
        "backbone.",
        "model.",
        "net.",
        "module.model.",
    ):
        state = {prefix + key: value for key, value in STATE.items()}
        for content in (state, {"model": state, "epoch": 3, "args": argparse.Namespace(lr=1)},
                        {"state_dict": state}, {"state_dict_ema": state},
                        {"model_state_dict": state, "loss": 0.5}):  # fmt: skip
            torch.save(content, path)
            found = read_checkpoint(path)
            assert found.keys() == STATE.keys()
            assert all(torch.equal(found[key], value) for key, value in STATE.items())


def test_safetensors_and_half_precision(tmp_path: Path) -> None:
    save_file({key: value.half() for key, value in STATE.items()}, tmp_path / "x.safetensors")
    found = read_checkpoint(tmp_path / "x.safetensors")
    assert found["a.weight"].dtype == torch.float32


def test_what_stands_beside_weights(tmp_path: Path) -> None:
    """Heads; and an activation that the network does not have is refused."""
    file, beside = tmp_path / "model.safetensors", tmp_path / "config.json"
    assert heads_beside(file) == 0
    for activation in ("gelu", "gelu_python"):
        beside.write_text(json.dumps({"num_attention_heads": 12, "hidden_act": activation}))
        assert heads_beside(file) == 12
    for activation in ("relu", "gelu_new", 3):
        beside.write_text(json.dumps({"num_attention_heads": 12, "hidden_act": activation}))
        with pytest.raises(ValueError, match=f"config.json: hidden_act is '?{activation}"):
            heads_beside(file)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64])
def test_numbers_that_no_network_here_has(tmp_path: Path, kind: torch.dtype) -> None:
    state = {key: value.to(kind) for key, value in STATE.items()}
    files = [tmp_path / "x.pth"]
    torch.save(state, files[0])
    if kind != torch.complex64:
        files.append(tmp_path / "x.safetensors")
        save_file(state, files[1])
    for file in files:
        with pytest.raises(ValueError, match=rf"'a\.\w+' is {str(kind)[6:]}, .*save .* float32"):
            read_checkpoint(file)


def test_numbers_of_numpy_are_read(tmp_path: Path) -> None:
    """Under the names of NumPy 2 and, in a file of the old form, of NumPy 1."""
    notes = {"best_score": np.float64(0.5), "iter": np.int64(3), "kept": np.bool_(True)}
    path = tmp_path / "x.pth"
    torch.save({"state_dict": STATE, "meta": notes}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for name in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        path.write_bytes(content.replace(b"numpy._core.multiarray", name))
        assert name in path.read_bytes()
        assert read_checkpoint(path).keys() == STATE.keys()


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2))
        self.register_buffer("count", torch.tensor([1, 2]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T + self.count.sum()


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.ModuleList([Inner(), Inner()])
        self.scale = nn.Parameter(torch.ones([]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for inner in self.visual:
            x = inner(x)[:, :2]
        return x * self.scale


@pytest.mark.parametrize("half", [False, True])
def test_torchscript_is_read_and_not_run(tmp_path: Path, half: bool) -> None:
    module = Outer().half() if half else Outer()
    path = tmp_path / "x.pt"
    torch.jit.save(torch.jit.script(module), path)
    assert is_torchscript(path)
    found = read_checkpoint(path)
    want = module.state_dict()
    assert found.keys() == want.keys()
    for key, value in want.items():
        assert torch.equal(found[key], value.float() if value.is_floating_point() else value)


class Evil:
    def __reduce__(self) -> tuple:
        return os.mkdir, ("/tmp/never-made-by-tenfold",)


def test_hostile_files_run_nothing(tmp_path: Path) -> None:
    torch.save({"model": Evil()}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(Evil()))
        archive.writestr("x/constants.pkl", b"")
    for name, says in (("a.pth", "posix.mkdir.* holds code"), ("b.pt", "mkdir, which is no part")):
        with pytest.raises(ValueError, match=says) as caught:
            read_checkpoint(tmp_path / name)
        assert "weights_only" not in str(caught.value)
    assert not Path("/tmp/never-made-by-tenfold").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"a": torch.tensor([1.0, float("nan")])}, "not finite"),
        ({"a": torch.ones(1).expand(10**6)}, "bytes of data"),
        ({"a": torch.eye(3).to_sparse()}, "sparse"),
        ({"epoch": 3}, "no tensors; its keys are 'epoch'"),
        ([1, 2], "list, not a dictionary"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: object, says: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=says):
        read_checkpoint(tmp_path / "x.pth")


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        read_checkpoint(tmp_path / "x.pth")
    (tmp_path / "x.safetensors").write_bytes(b"12345678")
    with pytest.raises(ValueError, match="no readable safetensors"):
        read_checkpoint(tmp_path / "x.safetensors")


def test_clip_files() -> None:
    state = {
        "visual.class_embedding": torch.ones(8), "visual.positional_embedding": torch.ones(10, 8),
        "visual.conv1.weight": torch.ones(8, 3, 4, 4), "visual.proj": torch.ones(8, 5),
        "visual.transformer.resblocks.0.attn.in_proj_weight": torch.ones(24, 8),
        "visual.transformer.resblocks.0.mlp.c_fc.weight": torch.ones(16, 8),
        "logit_scale": torch.ones([]),
        "transformer.resblocks.0.ln_1.weight": torch.ones(4),
    }  # fmt: skip
    layout = describe_clip(state)
    assert (layout.width, layout.layers, layout.grid, layout.output_dim) == (8, 1, (3, 3), 5)
    assert layout.hidden == 16
    far = {key.replace("resblocks.0", "resblocks.9999999"): value for key, value in state.items()}
    with pytest.raises(ValueError, match=r"numbered \[9999999\], not from 0"):
        describe_clip(far)
    target = {key.removeprefix("visual."): tuple(value.shape) for key, value in state.items()
              if key.startswith("visual.")}  # fmt: skip
    account = convert_clip(state, target)
    assert account.is_complete and len(account.ignored) == 2
    with pytest.raises(ValueError, match="no class_embedding.*CLIP vision transformer"):
        describe_clip({"conv1.weight": torch.ones(1)})
