"""iTPN's pyramid of two levels, and masks whose blocks have a largest size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import tiny
import torch
from golden.harness import HERE
from hypothesis import given
from hypothesis import strategies as st

from tenfold import cli
from tenfold.core.config import from_json, to_json
from tenfold.core.seed import seed_of
from tenfold.nn.hivit import HiViT, Shape
from tenfold.runner.weights import construct
from tenfold.systems.itpn import Itpn, data
from tenfold.systems.itpn import pretrained as start
from tenfold.systems.itpn.config import Config, Model, Pretrain
from tenfold.systems.itpn.masking import Blockwise, blocks_of
from tenfold.systems.itpn.model import level_targets
from tenfold.systems.itpn.networks import build, network_of
from tenfold.systems.itpn.official import official_keys
from tenfold.systems.itpn.recipes import RECIPES
from tenfold.systems.itpn.training_models import FeatureTrainingModel

NEW = ("num_outs", "max_mask_patches_per_block")
"""Fields of pretrain that runs of before did not have."""
WORDS = [*tiny.options("itpn"), "--data.name", "scenes", "--steps", "2"]
PIXEL = Config(
    tasks=("pretrain",),
    model=Model(
        size=32, patch_size=8, embed_dim=32, depths=(1, 1, 2), heads=2, fpn_dim=16, fpn_depth=1
    ),
    pretrain=Pretrain(num_outs=2, decoder_dim=32, decoder_depth=1, decoder_heads=2),
)
CLIP = Config(
    tasks=("pretrain",),
    model=Model(
        family="clip", size=64, embed_dim=32, depths=(1, 1, 5), heads=2, fpn_dim=16, fpn_depth=1,
        layer_scale=0.1, bias="full",
    ),
    pretrain=Pretrain(method="clip", num_outs=2, teacher_dim=24),
)  # fmt: skip


def batch(cfg: Config, count: int = 2) -> dict[str, torch.Tensor]:
    """Pictures with what pre-training needs beside them."""
    draw = torch.Generator().manual_seed(0)
    units = (cfg.model.size // cfg.model.patch_size) ** 2
    images = torch.randn(count, 3, cfg.model.size, cfg.model.size, generator=draw)
    teacher = torch.randn(count, units, cfg.pretrain.teacher_dim, generator=draw)
    noise = torch.rand(count, units, generator=draw)
    return {"images": images, "noise": noise, "masked": noise < 0.4, "teacher": teacher}


# --- two levels --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cfg", "known"), [(PIXEL, "pixel_pretrain_d_two_levels"), (CLIP, "clip_pretrain_c_two_levels")]
)
def test_parameters_are_those_of_the_official_class(cfg: Config, known: str) -> None:
    network = build(cfg, "pretrain")
    current = network.state_dict()
    have = {key: list(current[name].shape) for key, name in official_keys(network).items()}
    spec = json.loads((HERE / "itpn" / f"{known}.json").read_text())
    assert spec["config"]["num_outs"] == 2 and have == dict(spec["state"])
    assert not [key for key in have if key.startswith(start.FINEST)]


@pytest.mark.parametrize("cfg", [PIXEL, CLIP])
def test_every_parameter_learns(cfg: Config) -> None:
    network = build(cfg, "pretrain")
    losses = network(batch(cfg))
    losses["loss"].backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert bool(losses["loss"].isfinite()) and not without


def test_two_levels_are_the_coarser_two_of_three() -> None:
    three = Shape(embed_dim=16, depths=(1, 1, 1), num_heads=2, patch_size=8, grid=(4, 4), fpn_dim=8)
    torch.manual_seed(0)
    whole, some = HiViT(three), HiViT(replace(three, fpn_levels=2))
    some.load_state_dict({k: v for k, v in whole.state_dict().items() if k in some.state_dict()})
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        want, got = (net.pyramid(net.encode(images)) for net in (whole, some))
    assert [x.shape for x in got] == [(2, 16, 1, 1, 8), (2, 16, 2, 2, 8)]
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=False))


def test_feature_modelling_of_two_levels() -> None:
    own = replace(PIXEL, pretrain=replace(PIXEL.pretrain, feature_weight=0.3))
    trainee = FeatureTrainingModel(build(own, "pretrain"), 0.3, 0.5)
    given_ = batch(own)
    trainee({name: given_[name] for name in ("images", "noise")})["loss"].backward()
    assert all(p.grad is not None for p in trainee.parameters())
    targets = level_targets(trainee.teacher[0], given_["images"])
    assert targets.shape == (2, 16, 16 * (1 + 4))
    coarse, middle = (float(x.square().sum()) for x in targets.split([16, 64], -1))
    assert middle / coarse == pytest.approx(1, abs=0.01)


def test_a_later_task_has_three_levels_of_which_one_is_new() -> None:
    words = ["--tasks", "pretrain", "localise", "--pretrain.num-outs", "2"]
    system = construct(Itpn, tiny.config("itpn", "demo", [*WORDS, *words]))
    list(system.stages())
    first, then = (network_of(system.model, task).backbone for task in ("pretrain", "localise"))
    assert (first.shape.fpn_levels, then.shape.fpn_levels) == (2, 3)
    assert torch.equal(first.split_16to8.reduction.weight, then.split_16to8.reduction.weight)
    # what started anew is said, and nothing else did
    account = system.accounts["localise"]
    anew = [key for key, why in account.ignored if "starts anew" in why]
    assert anew and all(key.startswith(start.FINEST) for key in anew) and account.is_complete


def test_exported_maps_of_two_levels_have_their_names() -> None:
    system = construct(Itpn, PIXEL)
    what = system.export_part("backbone", (0, 0))
    maps = dict(zip(what.output_names, what.module(*what.inputs), strict=True))
    sides = {name: x.shape[-1] for name, x in maps.items()}
    assert sides == {"level8": 8, "level16": 4, "level32": 2, "level64": 1}


def test_an_official_file_of_two_levels_is_known(tmp_path: Path) -> None:
    network = build(PIXEL, "pretrain")
    state = {key: network.state_dict()[name] for key, name in official_keys(network).items()}
    torch.save({"model": state}, tmp_path / "two.pth")
    system, account = Itpn.convert(tmp_path / "two.pth")
    assert system.cfg.pretrain.num_outs == 2 and system.cfg.model.fpn_dim == 16
    assert account.is_complete
    written = system.predict(tiny.scene(tmp_path), tmp_path / "out")
    assert "pyramid.png" in {path.name for path in written}


# --- masks -------------------------------------------------------------------------------------


class Watched(Blockwise):
    """Masks that keep how many units each of their blocks added."""

    added: list[int]

    def _add(self, mask: np.ndarray, most: int, random: Random) -> bool:
        before = int(mask.sum())
        found = super()._add(mask, most, random)
        self.added.append(int(mask.sum()) - before)
        return found


@given(
    st.integers(6, 16), st.integers(6, 16), st.floats(0.1, 0.6), st.integers(0, 40), st.integers(0)
)
def test_no_block_adds_more_than_the_limit(
    height: int, width: int, share: float, most: int, seed: int
) -> None:
    count = max(4, round(share * height * width))
    least = min(4, most or 4)
    masks = Watched(height, width, count, least, most)
    object.__setattr__(masks, "added", [])
    mask = masks.draw(Random(seed))
    assert mask.sum() == sum(masks.added) <= count
    assert all(n <= (most or count) for n in masks.added)


def test_without_a_limit_masks_are_those_of_before() -> None:
    for seed in range(20):
        free = Blockwise(14, 14, 75, 16).draw(Random(seed))
        assert np.array_equal(free, Blockwise(14, 14, 75, 16, 75).draw(Random(seed)))
    limited = [Blockwise(14, 14, 75, 16, 20).draw(Random(seed)) for seed in range(20)]
    free = [Blockwise(14, 14, 75, 16).draw(Random(seed)) for seed in range(20)]
    assert not any(np.array_equal(a, b) for a, b in zip(limited, free, strict=True))
    assert blocks_of(14, 0.38) == Blockwise(14, 14, 74, 16)
    assert blocks_of(8, 0.38, 9) == Blockwise(8, 8, 24, 5, 9)


def test_the_option_reaches_the_masks() -> None:
    pictures = np.zeros((4, 64, 64, 3), dtype=np.uint8)
    photos = data.classification.of_arrays(
        pictures, np.zeros(4, dtype=np.int64), ("any",), None, "own"
    )
    for most in (0, 5):
        cfg = replace(
            CLIP,
            model=replace(CLIP.model, patch_size=8),
            data=replace(CLIP.data, name="scenes", batch_size=4),
            pretrain=replace(CLIP.pretrain, max_mask_patches_per_block=most),
        )
        batches = data.PhotoBatches(cfg, photos, np.zeros(0, dtype=np.int64))
        masks = batches.tokens(batches.feed("pretrain"), 0, 64)["masked"]
        make = blocks_of(8, cfg.pretrain.masked_share, most)
        seeds = [seed_of(cfg.seed, "masks", 0, place) for place in range(4)]
        want = [make.draw(Random(seed)).flatten() for seed in seeds]
        assert np.array_equal(masks.numpy(), np.stack(want))


# --- configurations ----------------------------------------------------------------------------


def test_a_run_of_before_is_read() -> None:
    for recipe in RECIPES.values():
        values = to_json(recipe)
        for name in NEW:
            del values["pretrain"][name]
        assert from_json(Config, values) == recipe


def test_a_run_of_before_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = ["train", "itpn", "demo", *WORDS, "--tasks", "pretrain", "--no-probes"]
    command += ["--run.folder", str(folder)]
    cli.main(command)
    saved = json.loads((folder / "config.json").read_text())
    for name in NEW:
        del saved["config"]["pretrain"][name]
    (folder / "config.json").write_text(json.dumps(saved))
    cli.main(command)  # it is this run, and done
    with pytest.raises(SystemExit):
        cli.main([*command, "--pretrain.num-outs", "2"])


@pytest.mark.parametrize(
    ("most", "says"),
    [
        (-1, "max-mask-patches-per-block must be at least 0, got -1"),
        (3, "max_mask_patches_per_block 3 is less than the smallest block, 16 units of the 74"),
    ],
)
def test_a_limit_that_cannot_work(most: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(
            CLIP,
            model=replace(CLIP.model, size=224),
            pretrain=replace(CLIP.pretrain, max_mask_patches_per_block=most),
        )
