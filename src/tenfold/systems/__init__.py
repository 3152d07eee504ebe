"""The systems, one folder each; none imports another. To add one, add a line to `SYSTEMS`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenfold.core.errors import UsageError, nearest

if TYPE_CHECKING:
    from tenfold.core.system import System


@dataclass(frozen=True)
class Entry:
    """A row of `tenfold list`, known without importing the system."""

    target: str
    task: str
    data: str
    minutes: float
    """Of the demo on one idle core."""
    verbs: tuple[str, ...]
    """Verbs beyond training, evaluation and prediction; see `core.capabilities`."""
    opens: str = ""
    """Ending of official files that `predict` runs as they are."""


SYSTEMS = {
    "spgsn": Entry(
        "tenfold.systems.spgsn:Spgsn",
        "3D skeleton motion prediction by skeleton-parted graph scattering",
        "cmu_mocap",
        0.5,
        ("export", "convert"),
    ),
    "ppmoe": Entry(
        "tenfold.systems.ppmoe:Ppmoe",
        "mixture-of-experts language models: experts in the tensor group, pipelines, a planner",
        "textmix",
        0.5,
        ("export", "export official files", "convert", "plan"),
    ),
    "pangu": Entry(
        "tenfold.systems.pangu:PanguWeather",
        "global weather forecasts: 3D Earth-specific transformer, ensembles, cyclone tracks",
        "pangu_atmos",
        1.8,
        ("export", "export official files", "convert", "run official files"),
        opens=".onnx",
    ),
    "ldc": Entry(
        "tenfold.systems.ldc:Ldc",
        "few-shot class-incremental learning: new classes from five photos each",
        "tiny_imagenet_fscil",
        1.6,
        ("export", "convert", "learn"),
    ),
    "itpn": Entry(
        "tenfold.systems.itpn:Itpn",
        "pre-training of backbone and feature pyramid together; classify, segment, detect",
        "tiny_imagenet_20",
        1.0,
        ("export", "export a part", "convert"),
    ),
    "dts": Entry(
        "tenfold.systems.dts:Dts",
        "domain-adaptive segmentation: labelled renderings to unlabelled photos",
        "camvid",
        0.5,
        ("export", "convert"),
    ),
    "usage": Entry(
        "tenfold.systems.usage.system:Usage",
        "weakly supervised segmentation: labels of whole pictures to masks",
        "coco_wsss",
        0.4,
        ("export", "export a part", "convert"),
    ),
    "apis": Entry(
        "tenfold.systems.apis.system:Apis",
        "instance segmentation from boxes and answers about pixels that the machine chooses",
        "clothing_parsing",
        0.5,
        ("export", "export a part", "convert", "serve"),
    ),
    "virreq": Entry(
        "tenfold.systems.virreq.system:Virreq",
        "recognition by request: a picture into wholes, wholes into parts, as far as asked",
        "clothing_parsing",
        1.0,
        ("export", "convert", "serve"),
    ),
    "loupe": Entry(
        "tenfold.systems.loupe.system:Loupe",
        "fine-grained image-text pre-training: retrieval, grounding, detection without boxes",
        "emoji_scenes",
        0.5,
        ("export", "export official files", "explain"),
    ),
}
"""Name -> where its class is; nothing is imported until it is asked for."""


def able(verb: str) -> str:
    """Names of the systems that have a verb, in one line."""
    return ", ".join(name for name, entry in SYSTEMS.items() if verb in entry.verbs)


def refusal(name: str, verb: str) -> UsageError:
    """The error for a verb that a system has not; it names those that have it."""
    return UsageError(f"{name} cannot {verb}; systems that can: {able(verb)}")


def system_class(name: str) -> type[System[Any]]:
    """The class of a system, imported now."""
    if name not in SYSTEMS:
        nearest(name, list(SYSTEMS), "system")
    module, _, attribute = SYSTEMS[name].target.partition(":")
    cls: type[System[Any]] = getattr(importlib.import_module(module), attribute)
    return cls
