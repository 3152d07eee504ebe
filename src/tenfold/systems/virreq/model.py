"""Pictures of bytes to logits, and the loss of a batch of incomplete labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from tenfold.core.optim import Groups, groups_by_name
from tenfold.nn import fcos
from tenfold.nn.condinst import SMALL, CondInst, Settings, Supervision, Targets
from tenfold.nn.encoders import LiteEncoder
from tenfold.nn.mit import MitSize

from .config import Config
from .groups import Group, keys
from .knowledge import KnowledgeBase
from .loss import UNLABELLED, Allowed, request_loss
from .segmentation import Backbone, Network, TextClassifier, mix_transformer
from .table import TextTable

Colours = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and deviation of a picture's channels, of numbers from 0 to 1."""
IMAGENET: Colours = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LITE: Colours = ((127 / 255,) * 3, (128 / 255,) * 3)
"""What the published EfficientNet-Lite0 was trained on."""


class Networks(nn.Module):
    """Both networks: one divides regions into concepts, one separates them into objects."""

    def __init__(self, cfg: Config, kb: KnowledgeBase) -> None:
        super().__init__()
        self.divide = divider(cfg, kb)
        self.things = tuple(n.id for n in kb.nodes if n.thing and n.id != kb.root.id)
        """Ids of the countable concepts, in the order of the labels of objects."""
        self.separate: CondInst | None = None
        if cfg.separate.network != "none" and self.things:
            self.separate = separator(cfg, len(self.things))

    def name_things(self, kb: KnowledgeBase) -> None:
        """Give the network of objects the texts of its classes, from the table."""
        if self.separate is not None:
            names = keys(kb)
            rows = self.divide.texts.rows_of([names[number] for number in self.things])
            text: Tensor = self.separate.fcos.cls_logits.get_buffer("text")
            text.copy_(rows.detach())


def separator(cfg: Config, classes: int) -> CondInst:
    """CondInst with texts for classes, all places on an object's mask trained to find it."""
    own = cfg.separate
    start = SMALL if own.network == "small" else Settings(frozen=bool(cfg.start))
    settings = replace(start, sampling="mask", proposals=own.proposals, warmup=0)
    text = torch.ones(classes, cfg.text.dim)
    classifier = fcos.TextClassifier(settings.channels, text)
    return CondInst(classes, settings, classifier)


def divider(cfg: Config, kb: KnowledgeBase) -> Network:
    """The network of Type-I requests; its table of texts has names and no vectors yet."""
    model = cfg.model
    learned = cfg.text.source == "learned"
    table = TextTable(tuple(keys(kb).values()), cfg.text.dim, cfg.text.space, learned)
    classifier = TextClassifier(
        model.head_dim, cfg.text.dim, model.dropout, model.most_temperature, model.half
    )
    return Network(_encoder(cfg), model.head_dim, classifier, table)


def _encoder(cfg: Config) -> Backbone:
    model = cfg.model
    if model.encoder == "efficientnet-lite0":
        return LiteEncoder(fixed=bool(cfg.start), frozen=model.frozen)
    sizes = MitSize(model.dims, model.heads, model.depths, model.reductions)
    return mix_transformer(sizes, model.drop_path)


def normalised(
    images: UInt8[Tensor, "*batch 3 height width"], network: Network
) -> Float[Tensor, "*batch 3 height width"]:
    """Pictures of bytes as the network's encoder expects them."""
    colours = LITE if isinstance(network.backbone, LiteEncoder) else IMAGENET
    mean, deviation = (
        torch.tensor(values, device=images.device).view(3, 1, 1) for values in colours
    )
    return (images / 255 - mean) / deviation


def parameter_groups(factor: float) -> partial[Groups]:
    """Head and classifier learn faster; norms and the temperature do not decay (official)."""
    return partial(_groups, factor=factor)


def _groups(model: nn.Module, factor: float) -> Groups:
    # official: mmcv's custom_keys "norm" and "head"; batch norms of the head are called bn
    rules = {"norm": (1.0, False), "decode_head": (factor, True), "classifier": (factor, True)}
    return groups_by_name(model, {**rules, "logit_scale": (factor, False)})


class RequestTraining(nn.Module):
    """The network with the losses of all groups."""

    def __init__(self, cfg: Config, network: Network, groups: Sequence[Group]) -> None:
        super().__init__()
        self.cfg, self.network, self.groups = cfg, network, list(groups)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of {"images", "codes", "divided"}, as `data.Batches` has them."""
        logits = self.network(normalised(batch["images"], self.network))
        found: dict[str, Tensor] = {}
        total = logits.new_zeros((), dtype=torch.float32)
        for group in self.groups:
            rows = torch.tensor(group.rows, device=logits.device)
            part = self._loss(logits.index_select(1, rows), group, batch)
            total = total + (1.0 if group.level == 1 else self.cfg.loss.part_weight) * part
            name = f"loss/level {group.level}"
            found[name] = found[name] + part if name in found else part
        temperature = self.network.classifier.temperature().detach()
        return {"loss": total, **found, "temperature": temperature}

    def _loss(self, logits: Tensor, group: Group, batch: dict[str, Any]) -> Tensor:
        cfg, codes = self.cfg.loss, batch["codes"].long()
        wanted = group.wanted.to(codes.device)[codes]
        inside = group.inside.to(codes.device)[codes]
        is_first = group.level == 1
        divided = batch["divided"][:, None, None]
        if not is_first:
            wanted = torch.where(divided, wanted, UNLABELLED)
        allowed = None
        if not is_first and cfg.parts != "all":
            allowed = self._allowed(wanted, inside, len(group.rows), batch.get("objects"))
        counted = None if cfg.outside == "others" else inside
        weight = cfg.others_weight if is_first else cfg.part_others_weight
        return request_loss(logits, wanted, weight, counted, allowed)

    def _allowed(
        self, wanted: Tensor, inside: Tensor, names: int, objects: Tensor | None
    ) -> Allowed:
        """Parts that are labelled anywhere on this whole; none outside of wholes.

        A whole is an object where the labels tell objects apart, else all that a picture has of
        the group's wholes. With "complete" all parts are possible where any is labelled.
        """
        batch = len(wanted)
        number = torch.zeros_like(wanted, dtype=torch.int64)
        if objects is not None:
            number = torch.unique(objects, return_inverse=True)[1].view_as(objects)
        count = int(number.max()) + 1
        number = number + count * torch.arange(batch, device=wanted.device)[:, None, None]
        table = torch.zeros(batch * count + 1, names, dtype=torch.bool, device=wanted.device)
        named = inside & (wanted != UNLABELLED)
        table[number[named], wanted[named].long()] = True
        if self.cfg.loss.parts == "complete":
            table |= table.any(1, keepdim=True)
        return Allowed(torch.where(inside, number, batch * count), table)


class ObjectTraining(nn.Module):
    """The network of objects with its losses."""

    def __init__(self, network: CondInst) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of {"images", "objects", "step"}, as `data.ObjectBatches` has them."""
        encoded = self.network.encode(batch["images"].float())
        targets = [
            Targets(
                one["boxes"], one["labels"],
                torch.full_like(one["labels"], Supervision.MASK), one["masks"],
            )
            for one in batch["objects"]
        ]  # fmt: skip
        losses = self.network.losses(encoded, targets, batch["step"])
        total = torch.stack(list(losses.values())).sum()
        return {"loss": total, **{f"loss/{name}": value for name, value in losses.items()}}
