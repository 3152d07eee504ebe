"""A promptable segmenter of the user's own, frozen, as two ONNX files in SAM's layout.

The encoder makes an embedding of a picture, once; the decoder makes masks of it from a box and
points. None is shipped. Names of the decoder's inputs are those of segment-anything's own export
(scripts/export_onnx_model.py); encoders, which it does not export, are known by their shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from tenfold.extras import install

from .strategies import pixel_box

INPUTS = {
    "image_embeddings": 4, "point_coords": 3, "point_labels": 2, "mask_input": 4,
    "has_mask_input": 1, "orig_im_size": 1,
}  # fmt: skip
"""Inputs of the decoder -> axes."""
OUTPUT = "masks"
SIDE = 1024
"""Pixels of the longer side that an encoder of any size gets (SAM)."""
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of the channels red, green, blue (SAM)."""
CORNERS = (2.0, 3.0)
"""Labels of a box's left upper and right lower corner among the points (SAM)."""
JITTER = (0.0, -0.05, 0.05)
"""Shares of its sides by which a box grows, for a committee of a decoder that makes one mask."""


class Promptable:
    """Encoder and decoder, opened and looked at.

    Args:
        encoder: ONNX file: a picture [height, width, 3] (values 0 to 255) or [1, 3, side, side]
            (normalised, filled up) to an embedding [1, channels, rows, columns].
        decoder: ONNX file with the inputs of segment-anything's export.
        classes: Names of the classes, which a user chooses from.
        threads: Threads of onnxruntime; 0 is its choice.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A file is not ONNX, or has other inputs or outputs.
        ModuleNotFoundError: onnxruntime is not installed.
    """

    grows = True
    """It knows no classes, so that any are taken."""

    def __init__(
        self, encoder: Path, decoder: Path, classes: Sequence[str], threads: int = 0
    ) -> None:
        self.classes = list(classes)
        self._encoder = _session(encoder, threads)
        self._decoder = _session(decoder, threads)
        self._input, self._side, self._is_flat = _picture_input(self._encoder, encoder)
        _check_decoder(self._decoder, decoder)
        self._mask_shape = _mask_shape(self._decoder)

    def open(self, image: UInt8[np.ndarray, "height width 3"]) -> Prompted:
        """Make the embedding of a picture."""
        height, width = image.shape[:2]
        scale = self._side / max(height, width)
        size = round(width * scale), round(height * scale)
        seen = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        x: np.ndarray = seen.astype(np.float32)
        if not self._is_flat:
            x = (x - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
            right, below = self._side - size[0], self._side - size[1]
            x = np.pad(x, ((0, below), (0, right), (0, 0))).transpose(2, 0, 1)[None]
        (embedding,) = self._encoder.run(None, {self._input: np.ascontiguousarray(x)})[:1]
        return Prompted(self, embedding, (height, width), (size[0] / width, size[1] / height))

    def masks(self, opened: Prompted, prompts: list[tuple[float, float, float]]) -> np.ndarray:
        """Logits [k, height, width] of prompts x, y, label, in pixels of the picture."""
        points = np.array(prompts, dtype=np.float32)
        points[:, :2] *= np.array(opened.factors, np.float32)
        feed = {
            "image_embeddings": opened.embedding,
            "point_coords": points[None, :, :2],
            "point_labels": points[None, :, 2],
            "mask_input": np.zeros(self._mask_shape, dtype=np.float32),
            "has_mask_input": np.zeros(1, dtype=np.float32),
            "orig_im_size": np.array(opened.size, dtype=np.float32),
        }
        (found,) = self._decoder.run([OUTPUT], feed)
        if found.ndim != 4 or found.shape[2:] != opened.size:
            raise ValueError(
                f"the decoder's {OUTPUT} are {found.shape}, expected (1, k, {opened.size[0]}, "
                f"{opened.size[1]}): export it with masks of the picture's own size"
            )
        logits: np.ndarray = found[0].astype(np.float32)
        return logits


@dataclass(frozen=True)
class Prompted:
    """A picture whose embedding is known."""

    segmenter: Promptable
    embedding: np.ndarray
    size: tuple[int, int]
    """Height and width."""
    factors: tuple[float, float]
    """From x and y of the picture to those of the encoder."""

    def committee(
        self, box: tuple[float, ...], label: int, points: list[tuple[int, int, int]]
    ) -> Float[np.ndarray, "k height width"]:
        """Probabilities of a box's pixels: all masks that the decoder makes of box and points.

        Of a decoder that makes one, those of the box and of boxes a little smaller and larger.
        """
        x0, y0, x1, y1 = pixel_box(box, *self.size)
        found = self._masks(box, points, JITTER[0])
        if len(found) == 1:
            others = [self._masks(box, points, grown) for grown in JITTER[1:]]
            found = np.concatenate([found, *others])
        part = found[:, y0:y1, x0:x1].clip(-30, 30)
        return 1 / (1 + np.exp(-part))

    def _masks(
        self, box: tuple[float, ...], points: list[tuple[int, int, int]], grown: float
    ) -> np.ndarray:
        x0, y0, x1, y1 = box
        wide, tall = grown * (x1 - x0) / 2, grown * (y1 - y0) / 2
        corners = [(x0 - wide, y0 - tall, CORNERS[0]), (x1 + wide, y1 + tall, CORNERS[1])]
        said = [(x + 0.5, y + 0.5, float(answer)) for x, y, answer in points]
        return self.segmenter.masks(self, [*corners, *said])

    def propose_boxes(self) -> list[tuple[tuple[float, float, float, float], int, float]]:
        """No box: such a segmenter finds no objects of classes."""
        return []


def _session(path: Path, threads: int) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"ONNX files need onnxruntime: {install('export')}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a kind of its own for each cause
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"onnxruntime cannot open {path}: {reason}") from error


def _picture_input(session: Any, path: Path) -> tuple[str, int, bool]:
    """Name of the encoder's input, pixels of its side, and whether it is [height, width, 3]."""
    inputs = session.get_inputs()
    shape = tuple(inputs[0].shape) if inputs else ()
    if len(inputs) == 1 and inputs[0].type == "tensor(float)":
        if len(shape) == 3 and shape[2] == 3:
            sides = [n for n in shape[:2] if isinstance(n, int)]
            return inputs[0].name, max(sides, default=SIDE), True
        if len(shape) == 4 and shape[1] == 3:
            sides = [n for n in shape[2:] if isinstance(n, int)]
            if len(set(sides)) < 2:
                return inputs[0].name, max(sides, default=SIDE), False
    raise ValueError(
        f"{path} is no encoder in the layout of SAM's exports: looked for one input of floats, "
        f"(height, width, 3) or (1, 3, side, side), found {_described(inputs)}"
    )


def _check_decoder(session: Any, path: Path) -> None:
    inputs = {one.name: one for one in session.get_inputs()}
    outputs = [one.name for one in session.get_outputs()]
    wrong = [
        name
        for name, axes in INPUTS.items()
        if name not in inputs
        or len(inputs[name].shape) != axes
        or inputs[name].type != "tensor(float)"
    ]
    alien = [name for name in inputs if name not in INPUTS]
    if wrong or alien or OUTPUT not in outputs:
        raise ValueError(
            f"{path} is no decoder in the layout of SAM's exports: looked for the inputs of floats "
            f"{', '.join(INPUTS)} and the output {OUTPUT}, found {_described(inputs.values())} and "
            f"{', '.join(outputs)}"
        )


def _mask_shape(session: Any) -> tuple[int, ...]:
    """Shape of the earlier mask that a decoder takes; (1, 1, 256, 256) where it is free."""
    (found,) = [one for one in session.get_inputs() if one.name == "mask_input"]
    usual = (1, 1, SIDE // 4, SIDE // 4)
    return tuple(
        side if isinstance(side, int) else known
        for side, known in zip(found.shape, usual, strict=True)
    )


def _described(inputs: Any) -> str:
    return ", ".join(f"{one.name} {one.type} {tuple(one.shape)}" for one in inputs) or "none"
