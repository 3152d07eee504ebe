"""The exported network in onnxruntime finds what ours finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tenfold
from tenfold.generated import hollows
from tenfold.runner.export import TOLERANCE, export_checked
from tenfold.systems.apis import Apis, inference

Made = Callable[[str], Path]


@pytest.mark.slow
@pytest.mark.usefixtures("generated_only")
def test_detection_in_onnxruntime(made: Made, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    file = tmp_path / "condinst.onnx"
    system = tenfold.load(made("apis"))
    assert isinstance(system, Apis)
    picture = hollows.picture("export", 0).picture
    system.model.eval()
    limits = replace(system.model.settings.detection, threshold=0.001)  # it has learned little
    system.model.settings = replace(system.model.settings, detection=limits)
    found = inference.detect(system.model, system.cfg, picture)
    assert export_checked(system.export_part("detect", (64, 64)), "onnx", file) < TOLERANCE
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    pixels = picture.transpose(2, 0, 1)[None].astype(np.float32)
    boxes, scores, labels, masks = session.run(None, {"images": pixels})
    count = len(found)
    assert count and not scores[count:].any()
    np.testing.assert_allclose(scores[:count], found.scores, rtol=1e-4)
    np.testing.assert_allclose(boxes[:count], found.boxes, atol=1e-2)
    assert np.array_equal(labels[:count], found.labels)
    assert ((masks[:count] > 0.5) == found.masks).mean() > 0.9999


@pytest.mark.usefixtures("generated_only")
@pytest.mark.parametrize(
    ("part", "size", "says"),
    [
        ("boxes", (0, 0), "no part 'boxes' to export; it has heads, detect"),
        ("detect", (60, 64), "60 x 64 pixels: both must be multiples of 32"),
        ("heads", (64, 8192), "4096 at most"),
    ],
)
def test_parts_that_are_none(made: Made, part: str, size: tuple[int, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tenfold.load(made("apis")).export_part(part, size)  # type: ignore[attr-defined]
