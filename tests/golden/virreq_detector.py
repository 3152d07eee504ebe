"""Checks of the parts of ViRReq's detector that CondInst has not: texts, and places on masks."""

from __future__ import annotations

import torch
from torch import Tensor

from golden.apis_networks import compare_targets, outputs_of
from golden.harness import Case
from golden.virreq_fill import filled, given
from tenfold.nn import fcos
from tenfold.weights.condinst import convert_condinst

LIMITS = {"rtol": 1e-4, "atol": 1e-5}
THEIRS, OURS = "proposal_generator.fcos_head.cls_logits.", "fcos.cls_logits."
"""The classifier within a network."""


def check_text_classifier(case: Case) -> None:
    config, text = case.spec["config"], given(case, "text")
    assert text.shape == (config["classes"], config["text_dim"])
    head = fcos.TextClassifier(config["image_dim"], text, config["text_divisor"])
    target = {OURS + key: tuple(value.shape) for key, value in head.state_dict().items()}
    account = convert_condinst({THEIRS + k: v for k, v in filled(case).items()}, target)
    # texts are no part of a published file: the names of its classes are
    assert account.missing == [OURS + "text"] and not account.unused + account.mismatched
    state = {key.removeprefix(OURS): value for key, value in account.state.items()}
    head.load_state_dict(state | {"text": text})
    case.compare_all({"logits": head(given(case, "x"))}, LIMITS)


def ellipse(box: list[float], height: int, width: int) -> Tensor:
    """The ellipse that a box is around, at whole pixels."""
    x0, y0, x1, y1 = box
    y, x = torch.arange(height)[:, None], torch.arange(width)
    across = (x - (x0 + x1) / 2) / ((x1 - x0) / 2)
    down = (y - (y0 + y1) / 2) / ((y1 - y0) / 2)
    return across**2 + down**2 <= 1


def check_mask_sampling(case: Case) -> None:
    config, outputs = case.spec["config"], outputs_of(case)
    assigned = []
    for boxes in config["boxes_xyxy"]:
        masks = torch.stack([ellipse(box, *config["image_hw"]) for box in boxes])
        bounds = [8 * stride for stride in config["strides"][:-1]]
        assigned.append(fcos.assign(outputs, bounds, torch.tensor(boxes), masks=masks))
    compare_targets(case, outputs, assigned, [torch.tensor(own) for own in config["classes"]])


KINDS = {"text_classifier": check_text_classifier, "mask_sampling": check_mask_sampling}
"""Kind of case -> its check."""
