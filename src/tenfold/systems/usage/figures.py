"""Figures of a run's report: the stages on some pictures, the threshold's curve, both errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tenfold.data.images.image_labels import Item, read_image, read_mask
from tenfold.files import write_bytes
from tenfold.viz import fonts, overlays, plots
from tenfold.viz.overlays import Rgb
from tenfold.viz.predictions import spread

from . import inference, pseudo
from .evaluation import Details
from .pipeline import Pipeline

ROWS = 6
"""Pictures of a sheet."""
Add = Callable[[str, bytes, str], None]


def draw_figures(pipeline: Pipeline, details: Details, out: Path) -> dict[Path, str]:
    """Write sheets of pictures, the threshold's curve and the balance of errors.

    Args:
        pipeline: Networks and files of the run.
        details: What the evaluation counted.
        out: Folder of the figures.

    Returns:
        File -> caption.
    """
    captions: dict[Path, str] = {}

    def add(name: str, content: bytes, caption: str) -> None:
        write_bytes(out / name, content)
        captions[out / name] = caption

    pipeline.networks.eval()
    _stages(pipeline, details, add)
    _test(pipeline, add)
    if "train" in details.curves:
        _threshold(details, add)
    if details.balance:
        _balance(details, add)
    return captions


def _stages(pipeline: Pipeline, details: Details, add: Add) -> None:
    """Training pictures: what each stage makes of them, and the truth."""
    rows, used, titles = [], set[int](), [""]
    count, threshold = len(pipeline.cfg.classes) + 1, details.threshold
    # an evaluation has made the files; the first process alone draws
    items = [item for item in pipeline.items("train") if pipeline.has_files(item)]
    for item in spread(items, ROWS):
        picture = read_image(item)
        row, titles = [picture], ["picture"]
        maps: list[np.ndarray] = []
        if pipeline.has_seeds:
            seeds = pipeline.seed(item)
            row.append(overlays.heat(picture, seeds.amax(0).numpy()))
            weighed = pseudo.with_threshold(seeds, threshold)
            maps.append(weighed.argmax(0).byte().numpy())
            titles += ["activation", f"seeds at {threshold:.2f}"]
        maps.append(pipeline.pseudo_mask(item))
        titles.append("pseudo mask")
        row += [overlays.colour_map(one, count) for one in maps]
        used |= _labels(*maps)
        if "train" in pipeline.cfg.masked:
            row.append(_truth(item, picture, count, used))
            titles.append("truth")
        rows.append(row)
    if not rows:
        return
    caption = "Training pictures: what each stage makes of them" + (
        ", and the truth (white: none known)" if "truth" in titles else ""
    )
    _sheet(rows, titles, used, pipeline, add, "stages.png", caption)


def _test(pipeline: Pipeline, add: Add) -> None:
    """Test pictures: what the segmentation network says, and the truth."""
    network, cfg = pipeline.networks.segment, pipeline.cfg
    if network is None:
        return
    rows, used, count = [], set[int](), len(cfg.classes) + 1
    for item in spread(pipeline.items("test"), ROWS):
        picture = read_image(item)
        found = inference.segmentation(network, cfg, picture)
        used |= _labels(found)
        truth = _truth(item, picture, count, used)
        rows.append([picture, overlays.colour_map(found, count), truth])
    caption = "Test pictures: segmentation and truth (white: none known)"
    _sheet(rows, ["picture", "segmentation", "truth"], used, pipeline, add, "test.png", caption)


def _labels(*maps: np.ndarray) -> set[int]:
    found = {int(value) for one in maps for value in np.unique(one)}
    return found - {overlays.IGNORED}


def _truth(item: Item, picture: Rgb, count: int, used: set[int]) -> Rgb:
    mask = read_mask(item)
    if mask is None:
        return np.full_like(picture, 255)
    used |= _labels(mask)
    return overlays.colour_map(mask, count)


def _sheet(
    rows: list[list[Rgb]], titles: list[str], used: set[int], pipeline: Pipeline, add: Add,
    name: str, caption: str,
) -> None:  # fmt: skip
    names = ("background", *pipeline.cfg.classes)
    legend = overlays.legend(names, sorted(used), 700)
    whole = "; ".join([caption, *fonts.meanings(names)])
    add(name, overlays.sheet(rows, titles, footer=legend), whole)


def _threshold(details: Details, add: Add) -> None:
    """mIoU and both errors at every threshold, and where each choice falls."""
    curve = details.curves["train"]
    x = list(curve.thresholds)
    lines: dict[str, tuple[list[float], list[float]]] = {
        "mIoU": (x, curve.miou.tolist()), "FP": (x, curve.fp.tolist()),
        "FN": (x, curve.fn.tolist()),
    }  # fmt: skip
    chosen = details.threshold
    for name, value in {"chosen": chosen, **details.choices}.items():
        row = curve.at(value)
        lines[f"{name} {value:.2f}"] = ([value], [float(curve.miou[row])])
    content = plots.curves(
        lines, xlabel="threshold", ylabel="%", log=False, marks=[chosen], size=(6.4, 4.2)
    )
    best = curve.thresholds[curve.best]
    add(
        "threshold.png",
        content,
        f"Seeds of the training pictures at every threshold; the best is {best:.2f}, which only "
        "masks tell. Dots: choices that look at no mask, and the run's (dotted)",
    )


def _balance(details: Details, add: Add) -> None:
    """Both errors of every stage."""
    values = {
        "wrongly given (FP)": {stage: both[0] for stage, both in details.balance.items()},
        "missed (FN)": {stage: both[1] for stage, both in details.balance.items()},
    }
    content = plots.bars(values, ylabel="% of the union", size=(6.4, 3.6))
    add("balance.png", content, "Pixels wrongly given and missed, over the union, after each stage")
