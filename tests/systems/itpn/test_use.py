"""iTPN in use: starting points, official files, every task, exports, wrong inputs."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import clip_files
import pytest
import tiny
import torch
from PIL import Image

import tenfold
from tenfold import cli
from tenfold.generated import scenes
from tenfold.nn.clip_vision import ClipVisionTower
from tenfold.nn.hivit import HiViT
from tenfold.runner.export import TOLERANCE, export_checked
from tenfold.runner.weights import construct
from tenfold.systems.itpn import Itpn
from tenfold.systems.itpn import pretrained as weights
from tenfold.systems.itpn.config import Config
from tenfold.systems.itpn.data import CONSTANTS
from tenfold.systems.itpn.model import PixelPretraining, level_targets
from tenfold.systems.itpn.networks import build, network_of, shape_of, teacher_of
from tenfold.systems.itpn.official import official_keys, resized
from tenfold.systems.itpn.teacher import BackboneTeacher, ranged, standardised
from tenfold.systems.itpn.training_models import FeatureTrainingModel
from tenfold.weights.clip import MEAN, STD, ClipSettings
from tenfold.weights.clip_export import write_clip

WORDS = [*tiny.options("itpn"), "--data.name", "scenes", "--steps", "2"]


def config(*words: str, recipe: str = "demo") -> Config:
    return tiny.config("itpn", recipe, [*WORDS, *words])


def train(folder: Path, *words: str, recipe: str = "demo") -> Path:
    cli.main(["train", "itpn", recipe, *WORDS, *words, "--run.folder", str(folder)])
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("pretrained") / "run", "--tasks", "pretrain")


def official_file(path: Path, cfg: Config) -> dict[str, torch.Tensor]:
    """The weights of a configuration's pre-training, as the official code saves them."""
    network = build(cfg, "pretrain")
    state = {key: network.state_dict()[name] for key, name in official_keys(network).items()}
    torch.save({"model": state, "epoch": 1}, path)
    return state


# --- where tasks start -------------------------------------------------------------------------


def test_a_task_starts_from_a_run(pretrained: Path) -> None:
    cfg = config("--tasks", "localise", "--start", str(pretrained))
    system = construct(Itpn, cfg)
    list(system.stages())
    own = network_of(tenfold.load(pretrained).model, "pretrain").backbone.state_dict()
    begun = network_of(system.model, "localise").backbone.state_dict()
    assert own.keys() == begun.keys()
    assert all(torch.equal(own[key], value) for key, value in begun.items())
    assert system.accounts["localise"].is_complete


def test_a_start_that_is_gone_is_not_probed(pretrained: Path, tmp_path: Path) -> None:
    start = Path(shutil.copytree(pretrained, tmp_path / "start"))
    system = construct(Itpn, config("--tasks", "classify", "--start", str(start), "--probes"))
    assert system._has_probes
    shutil.rmtree(start)
    found = system.evaluate()
    assert "accuracy/fine-tuned/top1" in found.metrics
    assert not any("probe" in metric for metric in found.metrics)
    assert "is not probed" in found.notes[-1] and str(start) in found.notes[-1]


def test_classification_leaves_the_pyramid_and_says_so(pretrained: Path) -> None:
    system = construct(Itpn, config("--tasks", "classify", "--start", str(pretrained)))
    list(system.stages())
    ignored = system.accounts["classify"].ignored
    assert ignored and all("pyramid" in why for _, why in ignored)


def test_sizes_follow_from_an_official_file(tmp_path: Path) -> None:
    wide = config("--model.embed-dim", "32", "--model.heads", "1", "--model.fpn-depth", "2")
    state = official_file(tmp_path / "itpn.pth", wide)
    cfg = config("--tasks", "localise", "--start", str(tmp_path / "itpn.pth"))
    assert (cfg.model.embed_dim, cfg.model.fpn_depth, cfg.model.depths) == (32, 2, (1, 1, 2))
    system = construct(Itpn, cfg)
    list(system.stages())
    backbone = network_of(system.model, "localise").backbone
    assert torch.equal(backbone.blocks[0].mlp.fc1.weight, state["blocks.0.mlp.fc1.weight"])
    assert torch.equal(backbone.block_8to4[1].mlp.fc2.weight, state["block_8to4.1.mlp.fc2.weight"])


def test_nothing_of_the_pyramid_is_lost_silently(pretrained: Path) -> None:
    cfg = config("--tasks", "localise")
    given = weights.read(str(pretrained))
    deeper = replace(cfg, model=replace(cfg.model, fpn_depth=2))
    backbone = HiViT(shape_of(deeper, "localise"))
    with pytest.raises(ValueError, match=r"missing: block_16to8\.1.*"):
        weights.begin(backbone, given.state, given.source, allow_missing=False)
    found = weights.begin(backbone, given.state, given.source, allow_missing=True)
    assert found.missing and not found.unused
    shallow = HiViT(shape_of(cfg, "localise"))
    more = {**given.state, "block_16to8.1.norm2.weight": torch.ones(8)}
    with pytest.raises(ValueError, match=r"unused: block_16to8\.1\.norm2\.weight"):
        weights.begin(shallow, more, given.source, allow_missing=False)


def test_another_size_resizes_the_tables(pretrained: Path) -> None:
    given = weights.read(str(pretrained))
    cfg = config("--tasks", "classify", "--model.size", "96", "--model.bias", "full")
    backbone = HiViT(shape_of(cfg, "classify"))
    account = weights.begin(backbone, given.state, given.source, allow_missing=False)
    assert backbone.absolute_pos_embed.shape == (1, 36, 16)
    assert any("position_bias" in key and "anew" in why for key, why in account.ignored)
    table = {"blocks.3.attn.relative_position_bias_table": torch.randn(49, 2)}
    wanted = {"blocks.3.attn.relative_position_bias_table": (121, 2)}
    assert next(iter(resized(table, wanted).values())).shape == (121, 2)


def test_what_nothing_can_start_from(tmp_path: Path) -> None:
    torch.save({"model": {"conv1.weight": torch.ones(3)}}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match="no iTPN checkpoint: it lacks .*pos_embed"):
        config("--tasks", "classify", "--start", str(tmp_path / "resnet.pth"))
    with pytest.raises(FileNotFoundError, match="does not exist; give a run or a checkpoint"):
        config("--tasks", "classify", "--start", str(tmp_path / "nowhere"))


# --- pre-training ------------------------------------------------------------------------------


def test_feature_modelling_has_a_teacher_that_follows() -> None:
    cfg = config("--tasks", "pretrain", "--pretrain.feature-weight", "0.3")
    network = build(cfg, "pretrain")
    assert isinstance(network, PixelPretraining)
    model = FeatureTrainingModel(network, 0.3, 0.5)
    names = [name for name, _ in model.named_parameters()]
    assert names and not [name for name in names if "teacher" in name]
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 64, 64, generator=draw)
    batch = {"images": images, "noise": torch.rand(2, 16, generator=draw)}
    losses = model(batch)
    want = losses["loss/pixel"] + 0.3 * losses["loss/feature"]
    torch.testing.assert_close(losses["loss"], want)
    losses["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())
    with torch.no_grad():
        network.backbone.patch_embed.proj.weight += 1
    before = model.teacher[0].patch_embed.proj.weight.clone()
    model.follow(0, 10)
    moved = model.teacher[0].patch_embed.proj.weight - before
    torch.testing.assert_close(moved, torch.full_like(moved, 0.5))
    # normalised vectors, each level weighing the same
    targets = level_targets(model.teacher[0], images)
    assert targets.shape == (2, 16, 8 * 21)
    parts = [targets[..., :8], targets[..., 8:40], targets[..., 40:]]
    sums = [float(part.square().sum()) for part in parts]
    assert max(sums) / min(sums) < 1.01


def test_a_run_can_teach(pretrained: Path, tmp_path: Path) -> None:
    words = ["--tasks", "pretrain", "--pretrain.method", "clip", "--model.family", "clip"]
    words += ["--pretrain.teacher", str(pretrained), "--model.layer-scale", "0.1"]
    words += ["--model.bias", "full", "--model.depths", "1", "1", "5", "--pretrain.leak-free"]
    words += ["--probes"]
    result = json.loads((train(tmp_path / "run", *words) / "result.json").read_text())
    assert any("laterals masked" in note for note in result["notes"])
    assert "accuracy/linear probe/top1" in result["metrics"]


def test_a_run_teaches_on_pictures_as_it_learned_from(pretrained: Path) -> None:
    cfg = config("--tasks", "pretrain", "--data.normalise", "half")
    assert tenfold.load(pretrained).cfg.data.normalise == "imagenet"
    pretrain = replace(cfg.pretrain, method="clip", teacher=str(pretrained))
    teacher = teacher_of(replace(cfg, pretrain=pretrain))
    assert isinstance(teacher, BackboneTeacher) and teacher.mean == CONSTANTS["imagenet"][0]


def test_heads_activation_and_colours_of_a_clip_are_those_of_the_file_beside(
    tmp_path: Path,
) -> None:
    """open_clip's networks have GELU and other heads; a file alone is said to be taken for
    OpenAI's."""
    made = clip_files.clip(settings=ClipSettings(clip_files.HEADS, "gelu", std=(0.1, 0.2, 0.3)))
    write_clip(tmp_path, made, "open_clip")
    file = tmp_path / "open_clip_model.safetensors"
    cfg = config("--tasks", "pretrain")
    cfg = replace(cfg, pretrain=replace(cfg.pretrain, method="clip", teacher=str(file)))
    pictures = torch.rand(2, 3, 24, 24)

    def wanted(heads: int, quick: bool, std: tuple[float, ...]) -> torch.Tensor:
        v = made.vision
        tower = ClipVisionTower(v.width, v.layers, v.output_dim, v.patch_size, v.grid, heads,
                                v.hidden, quick)  # fmt: skip
        own = {k[7:]: value for k, value in made.state.items() if k.startswith("visual.")}
        tower.load_state_dict(own)
        x = tower.patches(standardised(ranged(pictures, cfg.pretrain.teacher_range), MEAN, std))
        tokens = tower.ln_post(tower.attended(x + tower.positional_embedding[1:])[:, 1:])
        return torch.nn.functional.layer_norm(tokens @ tower.proj, (v.output_dim,))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(teacher_of(cfg)(pictures), wanted(4, False, (0.1, 0.2, 0.3)))
    (tmp_path / "open_clip_config.json").unlink()
    with pytest.warns(UserWarning, match=r"pretrain.teacher .* does not say its heads and act"):
        torch.testing.assert_close(teacher_of(cfg)(pictures), wanted(1, True, STD))


def test_a_teacher_sees_pictures_as_they_are_unless_the_official_range_is_asked_for() -> None:
    backbone = build(config("--tasks", "pretrain"), "pretrain").backbone
    pictures = torch.rand(2, 3, 32, 32)
    correct, official = (
        BackboneTeacher(backbone, (0.5,) * 3, (0.25,) * 3, how)(pictures)
        for how in ("correct", "official")
    )
    for found, seen in ((correct, pictures), (official, pictures / 2 + 0.5)):
        tokens = backbone.encode((seen - 0.5) / 0.25).tokens
        wanted = torch.nn.functional.layer_norm(tokens, tokens.shape[-1:])
        torch.testing.assert_close(found, wanted)


def test_the_clip_branch_needs_a_teacher_and_depth(pretrained: Path) -> None:
    clip = ["--tasks", "pretrain", "--pretrain.method", "clip"]
    with pytest.raises(ValueError, match="needs a teacher: --pretrain.teacher FILE"):
        list(construct(Itpn, config(*clip, "--model.depths", "1", "1", "5")).stages())
    with pytest.raises(ValueError, match="taps main block 1 and needs blocks after it"):
        construct(Itpn, config(*clip))


def test_losses_look_at_removed_units_only() -> None:
    network = build(config("--tasks", "pretrain"), "pretrain")
    assert isinstance(network, PixelPretraining)
    draw = torch.Generator().manual_seed(0)
    batch = {
        "images": torch.randn(2, 3, 64, 64, generator=draw),
        "noise": torch.rand(2, 16, generator=draw),
    }
    found = network.decode(**batch)
    each = (network.decoder_pred(found.decoded) - network.target(batch["images"])).square().mean(-1)
    want = (each * found.masking.mask).sum() / found.masking.mask.sum()
    torch.testing.assert_close(network(batch)["loss"], want)


# --- dense tasks -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "recipe", "files"),
    [
        ("segment", "segment", {"segmentation.png", "scene-labels.png", "scene-overlay.png"}),
        ("detect", "detect", {"objects.png", "objects.json", "scene-objects.png"}),
    ],
)
def test_a_dense_task_from_start_to_pictures(
    pretrained: Path, tmp_path: Path, task: str, recipe: str, files: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from tenfold.systems.itpn import data

    monkeypatch.setattr(data, "GENERATED", {"train": 16, "test": 4})
    for cached in (data.segmented, data.instances):
        cached.cache_clear()
    words = ["--start", str(pretrained), "--data.batch-size", "4", "--dense.head-dim", "8"]
    words += ["--dense.size", "64", "--dense.short-sides", "64", "--dense.fc-dim", "16"]
    words += ["--loop.validate-every", "1"]
    folder = train(tmp_path / "run", *words, recipe=recipe)
    result = json.loads((folder / "result.json").read_text())
    assert all(0 <= value <= 100 for value in result["metrics"].values())
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log if row["split"] == "validation"] == [1, 2]
    written = tenfold.load(folder).predict(tiny.scene(tmp_path), tmp_path / "out")
    assert files <= {path.name for path in written}
    if task == "segment":
        with Image.open(tmp_path / "out/scene-labels.png") as image:
            assert image.mode == "P" and image.size == (64, 64)
    for cached in (data.segmented, data.instances):
        cached.cache_clear()


# --- export and official files -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("part", ["backbone", "classify"])
def test_onnx_at_another_size(tmp_path: Path, part: str) -> None:
    size = (96, 128)
    cfg = config("--model.bias", "full", "--model.fpn-dim", "8")
    system = construct(Itpn, cfg)
    for name, p in system.model.named_parameters():
        if "bias_table" in name or name.endswith("head.weight"):
            torch.nn.init.normal_(p)
    images = torch.randn(2, 3, *size)
    network = network_of(system.model, "classify").eval()
    with torch.no_grad():
        before = network.logits(images)
        what = system.export_part(part, size)
        if part == "classify":  # tables resized once are those resized at every call
            torch.testing.assert_close(what.module(images), before, rtol=1e-4, atol=1e-4)
    assert export_checked(what, "onnx", tmp_path / "x.onnx") < TOLERANCE
    assert what.inputs[0].shape[2:] == size
    with pytest.raises(ValueError, match="no part 'neck' to export; it has backbone, classify"):
        system.export_part("neck", (0, 0))


def test_official_files_are_converted_and_predict(tmp_path: Path) -> None:
    official_file(tmp_path / "itpn.pth", config())
    cli.main(["convert", "itpn", str(tmp_path / "itpn.pth"), "--out", str(tmp_path / "ours")])
    system = tenfold.load(tmp_path / "ours")
    assert system.cfg.tasks == ("pretrain",) and system.cfg.model.embed_dim == 16
    written = system.predict(tiny.scene(tmp_path), tmp_path / "out")
    assert {"reconstruction.png", "pyramid.png"} <= {path.name for path in written}


# --- wrong inputs ------------------------------------------------------------------------------


def folder_of(root: Path, classes: tuple[str, ...] = ("a", "b"), each: int = 12) -> Path:
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(each):
            image = Image.fromarray(scenes.scene("own", 100 * c + i).picture)
            image.save(root / name / f"{i}.jpg")
    return root


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> str:
    """The one line that a wrong input gets; nothing is written."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "itpn", "demo", *tiny.options("itpn"), *words,
                  "--run.folder", str(folder)])  # fmt: skip
    assert stopped.value.code == 2 and not folder.exists()
    return " ".join(capsys.readouterr().err.replace("│", " ").split())  # a box may wrap it


def test_own_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = folder_of(tmp_path / "own")
    words = ["--data.name", "folder", "--data.path", str(own), "--tasks", "pretrain", "classify"]
    bad = own / "a" / "3.jpg"
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "run"
    assert "3.jpg cannot be read" in refused(capsys, out, *words)
    cli.main(["train", "itpn", "demo", *tiny.options("itpn"), *words, "--steps", "1",
              "--data.skip-broken", "--run.folder", str(out)])  # fmt: skip
    assert "3.jpg" in capsys.readouterr().err
    table = tenfold.load(out).predict(own / "b", tmp_path / "out")[0]
    assert len(table.read_text().splitlines()) == 13
    one = folder_of(tmp_path / "one", ("a",))
    words[3] = str(one)
    assert "at least 2 are needed" in refused(capsys, tmp_path / "never", *words)
    words[1] = "tiny_imagenet_20"
    said = refused(capsys, tmp_path / "never", *words)
    assert "are --data.name folder" in said and "--data.name photos" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model.size", "60"], "model.size 60 is no multiple of model.patch_size 16"),
        (["--tasks", "detect", "--data.name", "tiny_imagenet_20"], "task detect needs one of"),
        (["--tasks", "classify", "pretrain"], "pretrain must come first"),
        (["--data.name", "folder", "--tasks", "pretrain"], "--data.path FOLDER"),
        (["--data.batch-size", "5000", "--data.name", "scenes"], "do not fill one batch of 5000"),
        (["--model.fpn-dim", "0"], "needs a pyramid"),
        (["--model.heads", "3"], "cannot be divided by model.heads 3"),
        (["--model.family", "fast"], "Fast-iTPN's pre-training was never released"),
    ],
)
def test_what_cannot_work_is_said_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert says in refused(capsys, tmp_path / "never", *words)
