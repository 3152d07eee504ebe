"""Checks of mixing, strong augmentation, block masks and rare class sampling of DTS's hosts."""

from __future__ import annotations

import re

import numpy as np
import torch

from golden.harness import Case
from tenfold.data.images import mixing, rare_classes

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
"""What the README of the cases suggests."""


def given(case: Case, role: str) -> torch.Tensor:
    """An input of the case."""
    return torch.from_numpy(case.input(role))


def check_classmix(case: Case) -> None:
    """The draw is an output of the case; what is made with it, and what it was drawn from."""
    labels, pseudo = given(case, "srclab"), given(case, "pl")
    source, target = given(case, "srcimg"), given(case, "tgtimg")
    choices = torch.from_numpy(case.take("choices")).long()
    chosen = torch.zeros(len(labels), mixing.LABELS, dtype=torch.bool).scatter_(1, choices, True)
    mask = mixing.class_mask(labels, chosen)
    weight = torch.full(labels.shape, float(case.spec["config"]["target_weight"]))
    mixed = mixing.paste(mask, source, target)
    mixed_labels = mixing.paste(mask, labels, pseudo)
    weights = mixing.paste(mask, torch.ones_like(weight), weight)
    got: dict[str, object] = {"unique": labels.unique(), "mask": mask[:, None].to(torch.uint8)}
    for row in range(len(labels)):
        one = slice(row, row + 1)
        got |= {
            f"img{row}": mixed[one],
            f"lbl{row}": mixed_labels[one, None].to(torch.uint8),
            f"w{row}": weights[one, None],
        }
    case.compare_all(got, CLOSE)
    # as many are drawn, of the same ones
    drawn = mixing.draw_classes(labels, torch.Generator().manual_seed(0), compat=True)
    assert drawn.sum(1).tolist() == [choices.shape[1]] * len(labels)
    assert set(drawn.any(0).nonzero().flatten().tolist()) <= set(labels.unique().tolist())


def check_blur_jitter(case: Case) -> None:
    config = case.spec["config"]
    # the two inputs are told apart by their kind, whatever they are called
    kinds = {entry.kind: entry for entry in case.inputs}
    x = torch.from_numpy(case.value(kinds["uniform"]))
    normed = torch.from_numpy(case.value(kinds["normal"]))
    jitter = mixing.Jitter(
        **{name: float(config[name]) for name in ("brightness", "contrast", "saturation", "hue")},
        order=tuple(config["order"]),
    )
    got = {
        "blur_kernel_size": np.array([mixing.kernel_size(side) for side in x.shape[2:]]),
        "jitter": mixing.jitter(x, [jitter] * len(x)),
        "denorm": mixing.denormalise(normed),
    }
    for sigma in config["sigmas"]:
        got[f"blur_{sigma}"] = mixing.blur(x, [float(sigma)] * len(x))
    case.compare_all(got, CLOSE)


def check_mic_mask(case: Case) -> None:
    config = case.spec["config"]
    (entry,) = case.inputs
    drawn = torch.from_numpy(case.value(entry))
    height, width = config["image_hw"]
    mask = mixing.block_mask(drawn, config["mask_ratio"], height, width)
    case.compare_all({"mask": mask.to(torch.uint8)})
    block, generator = config["mask_block_size"], torch.Generator()
    assert mixing.draw_blocks(len(drawn), height, width, block, generator).shape == drawn.shape


def check_rcs(case: Case) -> None:
    stats = case.spec["config"]["stats"]
    count = 1 + max(int(kind) for one in stats for kind in one if kind != "file")
    pixels = np.array([[one.get(str(kind), 0) for kind in range(count)] for one in stats])
    for name in case.arrays:
        what, temperature = re.fullmatch(r"(classes|prob)_T(.*)", name).groups()
        found = rare_classes.class_probabilities(pixels, float(temperature))
        case.compare(name, found[what == "prob"], **CLOSE)


KINDS = {
    "classmix": check_classmix,
    "blur_jitter": check_blur_jitter,
    "mic_mask": check_mic_mask,
    "rcs": check_rcs,
}
"""Kind of case -> its check."""
