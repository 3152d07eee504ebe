"""Training of a stage: every object by what is known of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tenfold.core.optim import Groups
from tenfold.nn.condinst import CondInst, Supervision, Targets

from .config import Config

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)


class Training(nn.Module):
    """A network with the losses of a stage."""

    def __init__(self, cfg: Config, network: CondInst, is_first: bool) -> None:
        super().__init__()
        self.cfg, self.network = cfg, network
        self.before = 0 if is_first else cfg.loss.warmup
        """Steps done before the stage, as far as the pairwise loss's warm-up counts them."""
        own = cfg.loss
        self.point_weight = own.point_weight if is_first else own.point_weight_later

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of a batch of `data.Batches`."""
        images = batch["images"]
        sizes = batch["sizes"]
        encoded = self.network.encode(images.float(), sizes)
        targets = [
            self._targets(one, int(size[0]), int(original))
            for one, size, original in zip(batch["objects"], sizes, batch["originals"], strict=True)
        ]
        losses = self.network.losses(encoded, targets, self.before + int(batch["step"]))
        losses["point"] = self.point_weight * losses["point"]
        total = torch.stack(list(losses.values())).sum()
        return {"loss": total, **{f"loss/{name}": value for name, value in losses.items()}}

    def _targets(self, one: dict[str, Tensor], height: int, original: int) -> Targets:
        masked = one["has_mask"]
        has_points = self.cfg.loss.supervision in ("points", "box+points")
        other = Supervision.POINTS if has_points else Supervision.BOX
        kinds = torch.where(masked, int(Supervision.MASK), int(other))
        return Targets(
            one["boxes"],
            one["labels"],
            kinds,
            one["masks"] if len(one["masks"]) else None,
            one["points"],
            one["answers"],
            int(self.cfg.loss.bottom * height / original),
        )


def groups(model: nn.Module) -> Groups:
    """All but norms decay, biases too, as detectron2's defaults have it."""
    norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, NORMS)
        for parameter in module.parameters()
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    found: Groups = [
        {"params": [p for p in trained if id(p) not in norms]},
        {"params": [p for p in trained if id(p) in norms], "weight_decay": 0.0},
    ]
    return [group for group in found if group["params"]]
