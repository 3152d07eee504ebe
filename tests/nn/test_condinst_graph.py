"""CondInst's graph for export finds what the network finds."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from tenfold.nn.condinst import SMALL, CondInst
from tenfold.nn.condinst_graph import DetectionGraph
from tenfold.nn.dynamic_masks import DynamicHead
from tenfold.nn.fcos import DetectSettings

TINY = replace(
    SMALL, widths=(4, 8, 8, 8), channels=8, groups=4, convs=1, branch_channels=8, branch_convs=1,
    mask=DynamicHead(features=4, channels=4),
    detection=DetectSettings(threshold=0.001, per_level=60, most=120),
)  # fmt: skip


def network() -> CondInst:
    torch.manual_seed(3)
    made = CondInst(3, TINY).eval()
    nn.init.normal_(made.fcos.controller.weight, std=0.2)
    nn.init.normal_(made.fcos.cls_logits.weight, std=0.1)
    nn.init.constant_(made.fcos.bbox_pred.bias, 2.0)
    return made


def image() -> torch.Tensor:
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 255


def test_the_graph_finds_the_same() -> None:
    model = network()
    (wanted,) = model.detect(model.encode(image()))
    with torch.no_grad():
        boxes, scores, labels, masks = DetectionGraph(model)(image())
    count = len(wanted)
    assert 3 < count < len(scores) and not scores[count:].any()
    assert not masks[count:].any() and not boxes[count:].any()
    torch.testing.assert_close(boxes[:count], torch.from_numpy(wanted.boxes))
    torch.testing.assert_close(scores[:count], torch.from_numpy(wanted.scores))
    assert torch.equal(labels[:count], torch.from_numpy(wanted.labels))
    assert torch.equal(masks[:count] > 0.5, torch.from_numpy(wanted.masks))
    assert (masks > 0.5).any()
