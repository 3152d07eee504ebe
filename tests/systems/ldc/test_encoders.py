"""Frozen encoders: of DINOv2's layout, of an iTPN run; their features are kept on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tiny import config, options

from tenfold.data import feature_cache
from tenfold.data.images import fscil
from tenfold.generated import shapes
from tenfold.nn.vit import Vit, VitShape
from tenfold.runner.weights import construct, save_weights
from tenfold.systems import system_class
from tenfold.systems.ldc.encoders import Frozen
from tenfold.systems.ldc.heads import in_space
from tenfold.systems.ldc.pretrained import take_encoder
from tenfold.systems.ldc.system import Ldc

pytestmark = pytest.mark.usefixtures("generated_only")
QUICK = ["--head", "lda", "--data.draws", "1", "--transformer.input", "16"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture
def dino(tmp_path: Path) -> Path:
    """A folder as transformers saves one, of a network of random weights, in official names."""
    torch.manual_seed(0)
    network = Vit(VitShape(16, 1, 4, 8, 3, 24, registers=1))
    folder = tmp_path / "dino"
    folder.mkdir()
    save_file(network.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": 4}))
    return folder


def frozen(words: list[str]) -> Ldc:
    """A system at the end of its stages: with a head that needs none, there are no steps."""
    system = construct(Ldc, config("ldc", "demo", words))
    assert isinstance(system, Ldc) and not [stage.name for stage in system.stages()]
    return system


def test_a_vision_transformer(dino: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*QUICK, "--encoder", str(dino)]
    system = frozen(words)
    sizes = system.cfg.transformer
    assert system.cfg.model.kind == "vit" and (sizes.heads, sizes.registers) == (4, 1)
    assert (sizes.dim, sizes.depths, sizes.input, sizes.patch_size) == (16, (1,), 16, 8)
    assert system.classifier.view.mean == fscil.IMAGENET[0]
    body = system.model.encoder
    assert isinstance(body, Frozen) and isinstance(body.body, Vit)
    numbers = system.evaluate()
    assert 0 <= numbers.metrics["final/mean/overall"] <= 100
    assert {"NCM", "LDA", "TEEN", "fine-tuning"} <= set(numbers.baselines)
    made = {file.name: file.read_bytes() for file in cache.iterdir()}
    assert made and not [name for name in made if name.endswith(".tmp")]
    # the same features again without the encoder
    with monkeypatch.context() as patch:
        patch.setattr(Frozen, "forward", lambda *_: pytest.fail("was encoded again"))
        again = frozen(words)
        assert torch.equal(again.encoded("train").features, system.encoded("train").features)
    # a damaged file is made anew
    damaged = next(iter(sorted(cache.iterdir())))
    damaged.write_bytes(made[damaged.name][:-3])
    assert torch.equal(frozen(words).model.means, system.model.means)
    assert damaged.read_bytes() == made[damaged.name]


def test_heads_must_be_known(dino: Path) -> None:
    (dino / "config.json").unlink()
    with pytest.raises(ValueError, match=r"16 channels.*--transformer\.heads"):
        config("ldc", "demo", [*QUICK, "--encoder", str(dino)])
    cfg = config("ldc", "demo", [*QUICK, "--encoder", str(dino), "--transformer.heads", "2"])
    assert cfg.transformer.heads == 2
    (dino / "config.json").write_text("[1")
    with pytest.raises(ValueError, match=r"config\.json"):
        config("ldc", "demo", [*QUICK, "--encoder", str(dino)])


def test_refusals(dino: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"transformer\.input is 20.*set 16"):
        config("ldc", "demo", ["--encoder", str(dino), "--transformer.input", "20"])
    save_file({"conv1.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="tenfold convert"):
        config("ldc", "demo", ["--encoder", str(tmp_path / "other.safetensors")])
    with pytest.raises(ValueError, match="give --encoder"):
        construct(Ldc, config("ldc", "demo", ["--model.kind", "vit"]))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        config("ldc", "demo", ["--encoder", str(tmp_path / "nowhere")])


def test_the_backbone_of_an_itpn_run(tmp_path: Path) -> None:
    """As far as weights go: what they were trained on does not matter here."""
    itpn = construct(system_class("itpn"), config("itpn", "demo", options("itpn")))
    save_weights(tmp_path / "run" / "weights.safetensors", "itpn", itpn)
    words = ["--head", "ncm", "--data.draws", "1", "--encoder", str(tmp_path / "run")]
    system = construct(Ldc, config("ldc", "demo", words))
    assert isinstance(system, Ldc)
    take_encoder(system.model, tmp_path / "run", system.cfg.model.kind)
    assert system.cfg.model.kind == "hivit" and system.cfg.transformer.depths == (1, 1, 2)
    features = system.classifier.features(torch.from_numpy(shapes.draw(1, ["a", "b"])))
    backbone = itpn.model["classify"].backbone.eval()
    size = system.cfg.transformer.input
    view = system.classifier.view
    assert view.mean == fscil.IMAGENET[0] and size == itpn.cfg.model.size
    given = view.test(torch.from_numpy(shapes.draw(1, ["a", "b"])))
    if given.shape[-1] != size:
        given = F.interpolate(given, size=(size, size), mode="bicubic", antialias=True)
    with torch.no_grad():
        tokens = backbone.encode(given).tokens.mean(1)
    wanted = (tokens - tokens.mean(1, keepdim=True)) / tokens.std(1, keepdim=True, correction=0)
    torch.testing.assert_close(features, wanted, atol=1e-3, rtol=1e-3)


def test_the_cache_is_bounded(cache: Path) -> None:
    view = fscil.view("shapes")
    rows = [torch.full((2, 3, 32, 32), i, dtype=torch.uint8) for i in range(4)]
    for i, images in enumerate(rows):
        feature_cache.cached(
            images, view, "x", 1000 / 2**30, lambda i=i: torch.full((2, 60), 1.0 * i)
        )
    assert len(list(cache.iterdir())) == 1  # of about 700 bytes
    found = feature_cache.cached(rows[3], view, "x", 1, lambda: pytest.fail("not kept"))
    assert torch.equal(found, torch.full((2, 60), 3.0))
    other = feature_cache.cached(rows[3], view, "y", 1, lambda: torch.zeros(2, 60))
    assert not other.any()


def test_a_cache_that_cannot_be_written_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "file"))
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    with pytest.warns(UserWarning, match="TENFOLD_CACHE"):
        found = feature_cache.cached(images, fscil.view("shapes"), "x", 1, lambda: torch.ones(1, 2))
    assert found.tolist() == [[1.0, 1.0]]


def test_roots_of_signed_features() -> None:
    x = torch.tensor([[4.0, -9.0, 0.0]])
    torch.testing.assert_close(in_space(x, "tukey"), torch.tensor([[2.0, -3.0, 0.0]]) / 13**0.5)
