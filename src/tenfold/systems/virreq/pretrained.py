"""Weights that training starts from, and official files as runs.

A run; a file of the authors' layout; an encoder alone; a network of objects in AdelaiDet's layout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from tenfold.core import checkpoint
from tenfold.core.errors import require_file_or_folder
from tenfold.data.images.panoptic_parts import CITYSCAPES_PARTS
from tenfold.nn.clip_text import ClipTextTower
from tenfold.nn.mit import MitSize
from tenfold.printable import Lines
from tenfold.weights.clip_text import convert_clip_text, describe_clip_text
from tenfold.weights.condinst import HEAD, convert_condinst
from tenfold.weights.containers import find_weights, is_run, read_checkpoint
from tenfold.weights.keymap import Converted, KeyMap, Rule

from . import knowledge_sets, official, sources
from .config import Config, Model, Text
from .knowledge import KnowledgeBase
from .model import Networks
from .recipes import PAPER
from .sets import OFFICIAL_CLASSES

TEXTS = r"divide\.texts\..*|.*\.cls_logits\.text"
"""Keys of texts: those of encoders are the run's own, learned ones are taken over."""
OBJECTS = HEAD.replace("\\", "")
"""What keys of a network of objects begin with in AdelaiDet's layout."""
CLASSIFIER = "fcos.cls_logits."
TEXT = CLASSIFIER + "text"
"""Vectors of the classes, which are the run's own."""
ANEW = "ours; starts anew"


def sized(cfg: Config) -> Config:
    """The configuration with the sizes of the encoder's file that training starts from."""
    if not cfg.start or not Path(cfg.start).exists():
        return cfg
    file = find_weights(Path(cfg.start), "--start")
    if is_run(file):
        return cfg
    state = read_checkpoint(file)
    if _has_objects(state):
        return cfg
    return replace(cfg, model=_of_layout(official.known(file, state)[1], cfg.model))


def begin(networks: Networks, cfg: Config) -> str:
    """Fill the networks by `cfg.start`, but for an encoder's texts; returns a sentence, or nothing.

    An official file has the network that divides regions, one of AdelaiDet's layout that of
    objects; a run has both.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: They do not fit; every key is listed.
    """
    if not cfg.start:
        return ""
    source = Path(cfg.start)
    require_file_or_folder(source, "--start")
    file = find_weights(source, "--start")
    if is_run(file):
        account = _of_run(file, networks, cfg)
    else:
        state = read_checkpoint(file)
        if _has_objects(state):
            account = _of_objects(state, networks, source)
        else:
            given, _ = official.known(file, state)
            account = official.convert(given, _shapes(networks.divide)).with_prefix("divide.")
    account.require_start(cfg.start, cfg.allow_missing)
    networks.load_state_dict(account.state, strict=False)
    return f"training started from {source}: {len(account.state)} tensors"


def _of_run(file: Path, networks: Networks, cfg: Config) -> Converted:
    name, _ = checkpoint.read_header(file)
    if name != "virreq":
        raise ValueError(f"--start {file} has weights of {name}, not of virreq")
    ignored = [] if cfg.text.source == "learned" else [(TEXTS, "the run's own texts")]
    same = KeyMap([Rule(r"(.*)", r"\1")], ignored)
    account = same.convert(checkpoint.read_tensors(file), _shapes(networks))
    own = dict(account.ignored)
    account.missing = [key for key in account.missing if key not in own]
    return account


def _has_objects(state: Mapping[str, Tensor]) -> bool:
    return any(key.startswith(OBJECTS) for key in state)


def _of_objects(state: Mapping[str, Tensor], networks: Networks, source: Path) -> Converted:
    """The account of a network of objects, all but its classes (official: COCO's)."""
    if networks.separate is None:
        raise ValueError(
            f"--start {source} is a network of objects, which this run has not; give "
            "--separate.network resnet50"
        )
    target = _shapes(networks.separate)
    plain = [key for key in state if re.fullmatch(HEAD + r"cls_logits\.(?:weight|bias)", key)]
    kept = {key: value for key, value in state.items() if key not in plain}
    account = convert_condinst(kept, target)
    anew = [key for key in account.missing if key.startswith(CLASSIFIER)] if plain else []
    account.missing = [key for key in account.missing if key not in anew and key != TEXT]
    account.ignored += [(key, "a classifier of other classes") for key in plain]
    account.ignored += [(f"separate.{key}", ANEW) for key in anew]
    return account.with_prefix("separate.")


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def _of_layout(layout: official.Layout, model: Model) -> Model:
    """Sizes of a file, and what it does not say as it was."""
    if layout.encoder is None:
        return replace(model, encoder="efficientnet-lite0")
    sizes = MitSize(*layout.encoder[:4])
    model = replace(model, encoder="mit", frozen=0, **sizes._asdict())
    return replace(model, head_dim=layout.channels) if layout.channels else model


# --- official files as runs ----------------------------------------------------------------------


def opened(source: Path) -> tuple[Networks, Config, Converted]:
    """The authors' whole-to-part network of a file, with its configuration and account.

    Its names are those of Cityscapes Panoptic Parts: no file says which they are, and others can
    be added or asked for by a request. Their vectors are made by CLIP's text encoder inside the
    file, else by what `text` finds.

    Raises:
        FileNotFoundError: There is no file.
        ValueError: It holds something else; the error says what, lists every tensor that does not
            fit, and how to use the file.
    """
    state = read_checkpoint(source)
    _refuse_others(source, state)
    given, layout = official.known(source, state)
    if not layout.channels:
        raise ValueError(Lines(
            f"{source} has an encoder alone; train from it: tenfold train virreq paper --start "
            f"{source}\n{_encoder_account(given, layout).report()}"
        ))  # fmt: skip
    kb = _official_names()
    cfg = replace(
        PAPER,
        model=replace(_of_layout(layout, PAPER.model), most_temperature=0.0),
        text=Text(dim=layout.dim, clip=str(source) if official.text_tower(state) else ""),
        data=replace(PAPER.data, name="cityscapes_parts"),
        separate=replace(PAPER.separate, network="none"),
        knowledge=kb.text,
    )
    cfg = sources.complete(cfg, kb)
    if cfg.text.source == "learned" or cfg.text.dim != layout.dim:
        raise ValueError(
            f"{source} needs texts of {layout.dim} numbers: CLIP's text encoder is not inside, and "
            "no stored vectors of it are there ($TENFOLD_DATA/clip_text)"
        )
    networks = Networks(cfg, kb)
    account = official.convert(given, _shapes(networks.divide)).with_prefix("divide.")
    networks.load_state_dict(account.state, strict=False)
    sources.fill(networks.divide.texts, kb, cfg.text)
    return networks, cfg, account


def _official_names() -> KnowledgeBase:
    """Classes and parts of Cityscapes by the authors' names, which have underscores."""
    plain = knowledge_sets.of_parts(CITYSCAPES_PARTS, OFFICIAL_CLASSES)
    return KnowledgeBase(
        tuple(replace(node, name=node.name.replace(" ", "_")) for node in plain.nodes)
    )


def _encoder_account(state: Mapping[str, Tensor], layout: official.Layout) -> Converted:
    """What of a file would be the encoder of a network of its sizes."""
    model = _of_layout(layout, replace(PAPER.model, head_dim=8))
    kb = _official_names()
    cfg = replace(PAPER, model=model, text=Text(dim=8), knowledge=kb.text,
                  separate=replace(PAPER.separate, network="none"))  # fmt: skip
    return official.convert(state, _shapes(Networks(cfg, kb).divide))


def _refuse_others(source: Path, state: Mapping[str, Tensor]) -> None:
    """Say what to do with files that hold no whole-to-part network, and what of them is known."""
    if _has_objects(state):
        raise ValueError(
            f"{source} is a network of objects (AdelaiDet's layout); train from it: tenfold train "
            f"virreq paper --start {source}, or convert it for tenfold's apis"
        )
    try:
        sizes = describe_clip_text(state)
    except ValueError:
        return
    tower = ClipTextTower(
        sizes.width, sizes.layers, sizes.dim, sizes.context, sizes.vocabulary, hidden=sizes.hidden
    )
    raise ValueError(Lines(
        f"{source} is CLIP's text encoder, no network; train with its texts: tenfold train virreq "
        f"paper --text.clip {source}\n{convert_clip_text(state, _shapes(tower)).report()}"
    ))  # fmt: skip
