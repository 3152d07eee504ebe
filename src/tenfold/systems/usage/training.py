"""Training of the seed network: USAGE's two losses, and those of MCTformer."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.nn.ema import NOISE, update_teacher

from .adjust import Adjustment
from .config import Config
from .loss import generation_loss, ramp, regularisation_loss
from .networks import Activations, SeedNetwork
from .views import normalised


class SeedTraining(nn.Module):
    """The seed network as student, with its teacher where there is one."""

    def __init__(self, cfg: Config, network: SeedNetwork) -> None:
        super().__init__()
        self.cfg, self.network = cfg, network
        self._teacher: list[SeedNetwork] = []  # in a list: no part of what is trained
        if cfg.loss.has_teacher:
            self._teacher.append(deepcopy(network).requires_grad_(False))

    @property
    def teacher(self) -> SeedNetwork | None:
        """The running average of the student."""
        return self._teacher[0] if self._teacher else None

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of {"images", "labels", "step"}; images are of bytes, `step` counts optimiser
        steps."""
        cfg = self.cfg.loss
        images = normalised(batch["images"], self.cfg.model.colours)
        labels = batch["labels"]
        strong = Adjustment(cfg.strong, cfg.adaptive) if cfg.strong else None
        found = self.network(images, strong)
        generation, _ = generation_loss(
            found.maps.flatten(2), labels, cfg.tau_pos, cfg.tau_neg, cfg.softmax_over, cfg.detach
        )
        parts = {"loss/generation": generation}
        total = generation
        if found.class_logits is not None:
            parts["loss/class tokens"] = F.multilabel_soft_margin_loss(found.class_logits, labels)
            total = total + cfg.class_weight * parts["loss/class tokens"]
        if found.class_tokens is not None and self.cfg.model.name == "mctformer-plus":
            parts["loss/contrast"] = contrast(found.class_tokens, labels)
            total = total + cfg.contrast_weight * parts["loss/contrast"]
        if self.teacher is not None:
            parts["loss/regularisation"] = self._regularisation(images, found, labels)
            rise = ramp(batch["step"], self.cfg.steps) if cfg.reg_ramp else 1.0
            total = total + cfg.reg_weight * rise * parts["loss/regularisation"]
        return {"loss": total, **parts}

    def _regularisation(self, images: Tensor, found: Activations, labels: Tensor) -> Tensor:
        cfg, teacher = self.cfg.loss, self.teacher
        assert teacher is not None
        teacher.to(images.device)
        set_modes(teacher, self.network)
        weak = Adjustment(cfg.weak, cfg.adaptive) if cfg.weak else None
        with torch.no_grad():
            seen = teacher(images, weak).maps
        return regularisation_loss(found.maps.flatten(2), seen.flatten(2), labels, cfg.reg_form)

    def follow(self, step: int) -> None:
        """Let the teacher follow the student, buffers too, after an optimiser step."""
        if self.teacher is not None:
            update_teacher(self.teacher, self.network, self.cfg.loss.ema, buffers=True)


def set_modes(teacher: nn.Module, student: nn.Module) -> None:
    """Training mode as the student's, without noise but that of the adjustment."""
    teacher.train(student.training)
    for module in teacher.modules():
        if isinstance(module, NOISE):
            module.eval()


def contrast(tokens: Tensor, labels: Tensor) -> Tensor:
    """Contrast of class tokens (MCTformer+): each is to be most like itself.

    Cross-entropy of the cosines between the tokens of a picture, over the classes that are in it,
    the mean over blocks and pictures.
    """
    unit = F.normalize(tokens, dim=3)
    cosines = unit @ unit.transpose(2, 3)
    own = cosines.log_softmax(3).diagonal(dim1=2, dim2=3)
    of_picture = -(own * labels).sum(2) / labels.sum(1).clamp(min=1)
    return of_picture.mean()
