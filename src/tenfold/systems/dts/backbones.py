"""Vision transformers as encoders: sizes and tensors of the weights that training starts from.

HiViT comes from a run of iTPN or a file of its official code, ViT from a file of DINOv2 or from
what transformers saves of it. Positions keep the grid for which they are stored.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from tenfold.core import checkpoint
from tenfold.core.config import from_json
from tenfold.core.errors import require_file_or_folder
from tenfold.weights import hivit
from tenfold.weights.containers import find_weights, heads_beside, is_run, read_checkpoint
from tenfold.weights.dinov2 import HEAD_CHANNELS, convert_dinov2, describe_dinov2, is_dinov2
from tenfold.weights.keymap import Converted

from .config import Config, Model, Transformer

TASKS = ("pretrain", "classify", "localise", "segment", "detect")
"""Parts of an iTPN run whose backbone is taken, the first that there is."""


@dataclass(frozen=True)
class Given:
    """A transformer that training starts from."""

    dim: int
    heads: int
    depths: tuple[int, int, int, int]
    sizes: Transformer
    state: dict[str, Tensor]
    """Tensors by the names of the file or run, a run's without what stands before them."""


def is_transformer(model: Model) -> bool:
    """True if the sizes of the encoder are those of the weights that training starts from."""
    return model.encoder in ("hivit", "vit")


def sized(cfg: Config) -> Config:
    """The configuration with the sizes of the transformer that it starts from.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: They are not of the encoder that `model.encoder` names.
    """
    if not is_transformer(cfg.model) or not cfg.start:
        return cfg
    ours = _of_our_own(Path(cfg.start))
    if ours is not None:
        if ours.model.encoder != cfg.model.encoder:
            return cfg
        found = ours.model
        model = replace(cfg.model, dims=found.dims, heads=found.heads, depths=found.depths)
        return replace(cfg, model=model, transformer=ours.transformer)
    given = read(cfg)
    dims, heads = (given.dim,) * 4, (given.heads,) * 4
    model = replace(cfg.model, dims=dims, heads=heads, depths=given.depths)
    return replace(cfg, model=model, transformer=given.sizes)


def converted(cfg: Config, target: Mapping[str, tuple[int, ...]]) -> Converted:
    """The tensors of `cfg.start` as those of an encoder; every key of both sides is accounted for.

    Args:
        cfg: A configuration of `sized`.
        target: Shapes of the encoder's tensors by our names.
    """
    given = read(cfg)
    if cfg.model.encoder == "vit":
        return convert_dinov2(given.state, target)
    has_pyramid = cfg.transformer.pyramid > 0
    reasons = {
        key: "decoder or head, which no encoder has"
        if key.startswith(hivit.ASIDE)
        else "a pyramid without its finest level"
        for key in given.state
        if key.startswith(hivit.ASIDE) or (hivit.is_neck(key) and not has_pyramid)
    }
    kept = {key: value for key, value in given.state.items() if key not in reasons}
    account = hivit.convert(kept, target)
    account.ignored += list(reasons.items())
    return account


def read(cfg: Config) -> Given:
    """The transformer in a run or file, its sizes by header and shapes."""
    source = Path(cfg.start)
    require_file_or_folder(source, "--start")
    file = find_weights(source, "--start")
    try:
        if is_run(file):
            return _of_run(file, cfg.model.encoder)
        state = read_checkpoint(file)
        if cfg.model.encoder == "hivit":
            return _of_hivit(state)
        return _of_vit(state, file)
    except ValueError as error:
        said = str(error).removeprefix(f"{file}: ").removeprefix(f"{file} ")
        raise ValueError(f"--start {file}, encoder {cfg.model.encoder}: {said}") from error


def _of_our_own(source: Path) -> Config | None:
    """The configuration of a run of this system; None for anything else."""
    require_file_or_folder(source, "--start")
    file = find_weights(source, "--start")
    name, values = checkpoint.read_header(file) if is_run(file) else ("", {})
    return from_json(Config, values) if name == "dts" else None


def _of_vit(state: dict[str, Tensor], file: Path) -> Given:
    """A vision transformer in the official layout of DINOv2 or in that of transformers."""
    if not is_dinov2(state):
        raise ValueError("it has no layout of DINOv2 (official or transformers')")
    found = describe_dinov2(state)
    heads = heads_beside(file) or found.dim // HEAD_CHANNELS
    if heads < 1 or found.dim % heads:
        raise ValueError(
            f"it has {found.dim} channels, and nothing says how many heads; put transformers' "
            "config.json beside it"
        )
    if found.depth < 4:
        raise ValueError(f"a transformer of {found.depth} blocks is too shallow; 4 at least")
    ends = [found.depth * i // 4 for i in range(5)]
    first, second, third, fourth = (ends[i + 1] - ends[i] for i in range(4))
    sizes = Transformer(
        patch_size=found.patch_size, grid=found.grid, ratio=found.hidden / found.dim,
        registers=found.registers, gated=found.gated, layer_scale=float(found.layer_scale),
    )  # fmt: skip
    return Given(found.dim, heads, (first, second, third, fourth), sizes, state)


def _of_hivit(state: dict[str, Tensor]) -> Given:
    """A file of iTPN's official code."""
    found = hivit.describe(state)
    sizes = Transformer(
        patch_size=found.patch_size, grid=found.grid[0], ratio=found.ratio,
        stem_ratio=found.stem_ratio, gated=found.family == "fast",
        layer_scale=0.1 if found.layer_scale else 0.0, bias=found.bias,
        bias_grid=found.bias_grid[0], class_token=found.class_token, conv_stem=found.conv_stem,
        pyramid=found.fpn_dim if found.fpn_levels == 3 else 0, pyramid_depth=found.fpn_depth,
    )  # fmt: skip
    return Given(found.embed_dim, found.num_heads, (*found.depths, 1), sizes, state)


def _of_run(file: Path, encoder: str) -> Given:
    """The backbone of an iTPN run, its sizes by the run's configuration."""
    name, values = checkpoint.read_header(file)
    if name != "itpn" or encoder != "hivit":
        hint = "; --model.encoder hivit takes its backbone" if name == "itpn" else ""
        raise ValueError(f"it has weights of {name}{hint}")
    try:
        return _of_itpn(file, values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its header is damaged ({error!r})") from error


def _of_itpn(file: Path, values: dict[str, Any]) -> Given:
    task = next((task for task in TASKS if task in values["tasks"]), "")
    prefix = f"{task}.backbone."
    state = {key.removeprefix(prefix): value for key, value in checkpoint.read_tensors(file).items()
             if key.startswith(prefix)}  # fmt: skip
    if not state:
        raise ValueError(f"the run has no backbone; its tasks are {', '.join(values['tasks'])}")
    if values["data"]["normalise"] != "imagenet":
        warnings.warn(
            f"{file} learned from images of other mean and deviation ("
            f"{values['data']['normalise']}) than the encoder will see (ImageNet's)",
            stacklevel=3,
        )
    model: dict[str, Any] = values["model"]
    units = model["size"] // model["patch_size"]
    has_pyramid = "split_8to4.norm.weight" in state
    bias_grid = values["dense"]["size"] // model["patch_size"] if task == "segment" else units
    sizes = Transformer(
        patch_size=model["patch_size"], grid=units, ratio=model["ratio"],
        stem_ratio=model["stem_ratio"], gated=model["family"] == "fast",
        layer_scale=model["layer_scale"], bias=model["bias"], bias_grid=bias_grid,
        class_token=model["class_token"], conv_stem=model["conv_stem"],
        pyramid=model["fpn_dim"] if has_pyramid else 0, pyramid_depth=model["fpn_depth"],
    )  # fmt: skip
    first, second, third = model["depths"]
    return Given(model["embed_dim"], model["heads"], (first, second, third, 1), sizes, state)
