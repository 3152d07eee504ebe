"""From motion files to batches of DCT coefficients and positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tenfold.core import dist
from tenfold.core.epochs import Epochs
from tenfold.core.seed import seed_of
from tenfold.core.system import DataUsed
from tenfold.data import catalog
from tenfold.data.motion import bvh_folder, cmu_mocap, h36m, threedpw
from tenfold.data.motion.clips import Clip, Windows, holdout, protocol_windows
from tenfold.data.motion.skeleton import CMU, H36M, THREEDPW, Skeleton
from tenfold.generated import walker
from tenfold.nn.dct import dct_matrix

from .config import Config, Data

PUBLISHED: dict[Literal["cmu_mocap", "h36m", "3dpw"], Skeleton] = {
    "cmu_mocap": CMU,
    "h36m": H36M,
    "3dpw": THREEDPW,
}
READERS: dict[str, Callable[..., list[Clip]]] = {
    "cmu_mocap": cmu_mocap.read,
    "h36m": h36m.read,
    "3dpw": threedpw.read,
}
SELECTION = {"h36m": "validation", "3dpw": "validation"}
"""Data sets with a published validation split; the others hold out a share of training."""


def find(data: Data) -> Path | None:
    """The folder of the data, or None where it is not there; a path that was given must exist."""
    if data.name == "walker":
        return None
    if data.name == "bvh":  # files of the user's own, which no catalogue knows
        if not data.path:
            raise ValueError("data.name is bvh; say where the files are: --data.path FOLDER")
        if not Path(data.path).exists():
            raise FileNotFoundError(f"data.path {data.path} does not exist")
        return Path(data.path)
    return catalog.find(data.name, data.path)


def complete(cfg: Config) -> Config:
    """Choose the data (generated where none is found) and take the skeleton from it."""
    if find(cfg.data) is None and cfg.data.name != "walker":
        cfg = replace(cfg, data=replace(cfg.data, name="walker"))
    if cfg.skeleton.joints:
        return cfg
    if cfg.data.name == "bvh":
        skeleton = bvh_folder.read_skeleton(Path(cfg.data.path), cfg.data.mm_per_unit)
        fps = cfg.data.fps or skeleton.fps
        return replace(cfg, skeleton=replace(skeleton, fps=fps, label_fps=fps))
    if cfg.data.name == "walker":
        return replace(cfg, skeleton=replace(CMU, name="walker"))
    return replace(cfg, skeleton=PUBLISHED[cfg.data.name])


def used(data: Data) -> DataUsed:
    """Name and kind of the data that a result rests on."""
    if data.name == "walker":
        return DataUsed("walker", "generated", "kinematic walkers of our own", "MIT")
    licence = "your own" if data.name == "bvh" else catalog.entry(data.name).licence
    return DataUsed(data.name, "real", f"{data.protocol} test windows", licence)


def nodes(
    positions: Float[np.ndarray, "*n joint 3"], skeleton: Skeleton
) -> Float[Tensor, "*n node"]:
    """Coordinates of the used joints as graph nodes x0 y0 z0 x1 ..., in mm."""
    return torch.from_numpy(positions[..., list(skeleton.used), :]).flatten(-2)


def padded_coeffs(
    observed: Float[Tensor, "batch past node"], basis: Float[Tensor, "coeff frame"]
) -> Float[Tensor, "batch node coeff"]:
    """DCT of the observed frames followed by repeats of the last one, computed in float64.

    As the official code's readers do it (utils/cmu_motion_3d.py).
    """
    repeats = basis.shape[1] - observed.shape[1]
    padded = torch.cat([observed, observed[:, -1:].expand(-1, repeats, -1)], 1)
    return (basis.double() @ padded.double()).transpose(1, 2).float()


class Motions:
    """The clips of one configuration: read when first needed, cut into windows on demand."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.length = cfg.data.past + cfg.data.future
        self.basis = dct_matrix(self.length)[: cfg.data.num_coeffs]

    def clips(self, split: str) -> list[Clip]:
        """The clips of a split of the data set, checked against the skeleton."""
        data, skeleton = self.cfg.data, self.cfg.skeleton
        if data.name == "walker":
            clips = walker.clips(split)
        elif data.name == "bvh":
            folder = find(data)
            assert folder is not None
            # runs of before the skeleton kept its bones took files of any rate
            any_rate = bool(data.fps) or not skeleton.bones
            clips = bvh_folder.read(
                folder, split, skeleton, self.length, data.mm_per_unit, any_rate
            )
        else:
            folder = find(data) or catalog.find_or_explain(data.name)
            clips = READERS[data.name](folder, split, length=self.length)
        joints = len(skeleton.joints)
        for clip in clips:
            if clip.positions.shape[1] != joints:
                raise ValueError(
                    f"{clip.name} has {clip.positions.shape[1]} joints, but the skeleton "
                    f"{skeleton.name!r} of this run has {joints}; use one skeleton"
                )
        return clips

    @cached_property
    def _training(self) -> tuple[Windows, Windows | None]:
        """Training and validation windows; validation never comes from the test split."""
        data = self.cfg.data
        clips = self.clips("train")
        if data.name in SELECTION and not data.holdout:
            return Windows(clips, self.length), Windows(
                self.clips(SELECTION[data.name]), self.length
            )
        if not data.holdout:
            return Windows(clips, self.length), None
        kept, held = holdout(clips, data.holdout, self.length)
        return Windows(kept, self.length), Windows(held, self.length)

    @property
    def train(self) -> Windows:
        """Windows to train on."""
        return self._training[0]

    @property
    def validation(self) -> Windows | None:
        """Windows to select on, if any."""
        return self._training[1]

    @cached_property
    def test(self) -> Windows:
        """Windows of the test split under the protocol."""
        data = self.cfg.data
        return protocol_windows(
            self.clips("test"), data.name, data.protocol, data.past, self.length
        )

    def windows(self, split: str) -> Windows:
        """Windows of "test" or "validation"."""
        if split == "test":
            return self.test
        if split != "validation":
            raise ValueError(f"unknown split {split!r}; known: test, validation")
        if self.validation is None:
            raise ValueError(
                f"{self.cfg.data.name} has no validation split; set data.holdout (such as 0.1)"
            )
        return self.validation

    @cached_property
    def epochs(self) -> Epochs:
        """Training windows of each batch."""
        return Epochs(len(self.train), self.cfg.data.batch_size, self.cfg.seed)

    def batch(self, index: int) -> dict[str, Tensor | int]:
        """Micro-batch `index` of the run, this process's rows of it.

        Returns:
            `coeffs` (window, node, coefficient) of what is observed, `positions` (window, frame,
            node) in mm of the whole window, and `mask_seed`, which is the same on every process,
            so that all draw the same edge masks.
        """
        rows = self.epochs.rows(index)[dist.current().share(self.cfg.data.batch_size)]
        positions = nodes(self.train.gather(rows), self.cfg.skeleton)
        return {
            "coeffs": padded_coeffs(positions[:, : self.cfg.data.past], self.basis),
            "positions": positions,
            "mask_seed": seed_of(self.cfg.seed, "masks", index),
        }
