"""Pre-training of backbone and pyramid together: by pixels, or by a teacher's tokens.

The backbone is `nn.hivit.HiViT`; what is here is needed while pre-training only. Names of
parameters are those of the official code; the backbone's have `backbone.` before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from tenfold.nn.hivit import SIDES, Features, HiViT, Shape, init_weights
from tenfold.nn.hivit_blocks import Block, bias_index
from tenfold.nn.position import sincos_2d

from .loss import patchify, pixel_loss, statistics, token_loss


@dataclass(frozen=True)
class Masking:
    """Kept and removed units of each picture, and the way back to their places."""

    kept: Int64[Tensor, "batch kept"]
    removed: Int64[Tensor, "batch removed"]
    restore: Int64[Tensor, "batch unit"]
    """Place of each unit in (kept, then removed)."""
    mask: Float[Tensor, "batch unit"]
    """1 where a unit was removed."""


def random_masking(noise: Float[Tensor, "batch unit"], ratio: float) -> Masking:
    """Keep the units of smallest noise (official code, after MAE)."""
    units = noise.shape[1]
    keep = int(units * (1 - ratio))
    order = noise.argsort(1)
    mask = torch.ones_like(noise).scatter(1, order[:, :keep], 0.0)
    return Masking(order[:, :keep], order[:, keep:], order.argsort(1), mask)


class Merge(nn.ModuleList):
    """Each level of a pyramid to one vector a unit: norm, linear, sub-patches to channels.

    dims: channels of each level, with one sub-patch a unit's side, then two, then four.
    """

    def __init__(self, dims: Sequence[int], out: int, eps: float) -> None:
        super().__init__()
        for dim, side in zip(dims, SIDES, strict=False):
            linear = nn.Linear(dim, out // side**2)
            self.append(nn.Sequential(nn.LayerNorm(dim, eps=eps), linear))

    def forward(self, levels: Sequence[Tensor]) -> Float[Tensor, "batch unit out"]:
        """The sum over levels; (row, column, channel) of a unit become its channels."""
        # [batch, unit, side, side, out / side^2] -> [batch, unit, out]
        parts = [layer(level).flatten(2) for layer, level in zip(self, levels, strict=True)]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class Decoded:
    """A pixel decoder's view of a batch."""

    levels: list[Tensor]
    """The pyramid on kept units, coarsest first."""
    entered: Float[Tensor, "batch unit decoder"]
    """Given to the decoder."""
    decoded: Float[Tensor, "batch unit decoder"]
    """After its last norm."""
    masking: Masking


class PixelPretraining(nn.Module):
    """MAE on HiViT whose decoder sees the sum of all pyramid levels (official
    `models_itpn_mim.py`).

    shape.fpn_dim 0 is the baseline, HiViT-MAE: the decoder is fed by the main stage alone.
    """

    mask_token: nn.Parameter
    decoder_pos_embed: Tensor

    def __init__(
        self, shape: Shape, *, mask_ratio: float, dim: int, depth: int, heads: int,
        normalised: bool = True, feature_levels: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape, self.mask_ratio, self.normalised = shape, mask_ratio, normalised
        self.backbone = HiViT(shape)
        with torch.no_grad():
            self.backbone.absolute_pos_embed.copy_(sincos_2d(shape.embed_dim, *shape.grid)[None])
        dims = (shape.fpn_dim,) * shape.fpn_levels if shape.fpn_dim else (shape.embed_dim,)
        self.levels = len(dims)
        self.decoder_embed = Merge(dims, dim, shape.eps)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("decoder_pos_embed", sincos_2d(dim, *shape.grid)[None])
        hidden = int(dim * shape.ratio)
        blocks = [Block(dim, hidden, num_heads=heads, eps=shape.eps) for _ in range(depth)]
        self.decoder_blocks = nn.ModuleList(blocks)
        self.decoder_norm = nn.LayerNorm(dim, eps=shape.eps)
        self.decoder_pred = nn.Linear(dim, 3 * shape.patch_size**2)
        if feature_levels:
            self.feature_heads = feature_heads(dim, shape)
        for module in (self.decoder_embed, self.decoder_blocks, self.decoder_pred):
            module.apply(init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def decode(
        self, images: Float[Tensor, "batch 3 height width"], noise: Float[Tensor, "batch unit"]
    ) -> Decoded:
        """Mask, encode what is kept, and decode all units; `noise` decides what is kept."""
        masking = random_masking(noise, self.mask_ratio)
        features = self.backbone.encode(images, masking.kept)
        own = [features.tokens[:, :, None, None]]  # a level of one sub-patch a unit
        levels = self.backbone.pyramid(features) if self.shape.fpn_dim else own
        kept = self.decoder_embed(levels)
        # In the official code each level is filled up with the mask token before levels are summed.
        # Filled up after the sum, a removed unit carries as many mask tokens as there are levels.
        missing = (self.levels * self.mask_token).to(kept.dtype)
        x = missing.expand(len(kept), noise.shape[1], -1)
        x = x.scatter(1, masking.kept[..., None].expand_as(kept), kept)  # back in their places
        entered = x = x + self.decoder_pos_embed.to(x.dtype)
        for block in self.decoder_blocks:
            x = block(x)
        return Decoded(levels, entered, self.decoder_norm(x), masking)

    def target(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch unit value"]:
        """Pixels of each unit, normalised by their own statistics: what is to be predicted."""
        values = patchify(images, self.shape.patch_size)
        if not self.normalised:
            return values
        mean, deviation = statistics(values)
        return (values - mean) / deviation

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses of {"images", "noise"}, predicted where the loss looks: on removed units.

        With {"levels"}, a teacher's features of all units (`level_targets`), their loss besides.
        """
        found = self.decode(batch["images"], batch["noise"])
        removed = found.masking.removed[..., None]
        decoded = _rows(found.decoded, removed)
        target = _rows(self.target(batch["images"]), removed)
        # The paper's first term; its second is below: lambda times the sum over levels.
        losses = {"loss/pixel": pixel_loss(self.decoder_pred(decoded), target)}
        losses["loss"] = losses["loss/pixel"]
        if "features" in batch:
            targets = _rows(batch["features"], removed)
            guessed = torch.cat([head(decoded) for head in self.feature_heads], -1)
            losses["loss/feature"] = pixel_loss(guessed, targets) * self.levels
            losses["loss"] = losses["loss"] + batch["feature_weight"] * losses["loss/feature"]
        return losses


def _rows(x: Tensor, at: Int64[Tensor, "batch some 1"]) -> Tensor:
    """Some units of each picture."""
    return x.gather(1, at.expand(-1, -1, x.shape[2]))


def feature_heads(dim: int, shape: Shape) -> nn.ModuleList:
    """From the decoder to each pyramid level of a unit: ours, after the paper's second term."""
    outs = [side**2 * shape.fpn_dim for side in SIDES[: shape.fpn_levels]]
    heads = [nn.Sequential(nn.LayerNorm(dim, eps=shape.eps), nn.Linear(dim, o)) for o in outs]
    return nn.ModuleList(heads)


@torch.no_grad()
def level_targets(
    teacher: HiViT, images: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch unit value"]:
    """All pyramid levels of a teacher that sees the whole picture, coarsest first.

    Each sub-patch's vector is normalised without scale and shift, as the CLIP branch does.
    """
    levels = teacher.pyramid(teacher.encode(images))
    normal = [nn.functional.layer_norm(x.float(), x.shape[-1:]) for x in levels]
    # each level counts the same: a level of k*k sub-patches has k*k times the values
    sides = SIDES[: len(levels)]
    total = sum(side**2 for side in sides)
    weights = [(total / (len(sides) * side**2)) ** 0.5 for side in sides]
    return torch.cat([w * x.flatten(2) for w, x in zip(weights, normal, strict=True)], -1)


class ClipPretraining(nn.Module):
    """Regress a teacher's tokens from the pyramid and from inside the main stage."""

    def __init__(self, shape: Shape, teacher_dim: int, *, leak_free: bool = False) -> None:
        super().__init__()
        self.shape, self.leak_free = shape, leak_free
        self.tap = int(0.75 * shape.depths[2])
        if self.tap + 1 >= shape.depths[2]:
            raise ValueError(
                f"the CLIP branch taps main block {self.tap} and needs blocks after it, but "
                f"model.depths has only {shape.depths[2]} main blocks; 5, 6 or 8 would do"
            )
        self.backbone = HiViT(shape)
        dim = shape.embed_dim
        self.decoder_embed = Merge((shape.fpn_dim,) * shape.fpn_levels, dim, shape.eps)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.norm = nn.LayerNorm(dim, eps=shape.eps)
        self.norm_cls = nn.LayerNorm(dim, eps=shape.eps)
        self.lm_head = nn.Linear(dim, teacher_dim)
        self.lm_cls_head = nn.Linear(dim, teacher_dim)
        blocks = [
            Block(
                dim, int(dim * shape.ratio), num_heads=shape.num_heads, bias="full",
                grid=self.backbone.bias_grid, layer_scale=shape.layer_scale, eps=1e-5,
            )
            for _ in range(2)
        ]  # fmt: skip
        self.cls_pt_layers = nn.ModuleList(blocks)
        for module in (self.decoder_embed, self.cls_pt_layers, self.lm_head, self.lm_cls_head):
            module.apply(init_weights)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def predict(
        self, images: Float[Tensor, "batch 3 height width"], masked: Bool[Tensor, "batch unit"]
    ) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
        """(main prediction, auxiliary prediction, pyramid levels, auxiliary tokens)."""
        token = self.mask_token
        features = self.backbone.encode(images, None, masked, token, self.tap)
        assert features.tapped is not None
        laterals = features
        if self.leak_free:
            # The neck's laterals come from before the masking: without this the main head sees
            # the very pixels that it must predict, as it does in the official code
            # (`itpn_clip/modeling_pretrain.py`).
            seen = (~masked)[:, :, None, None, None].to(features.fine.dtype)
            laterals = Features(features.fine * seen, features.middle * seen, features.tokens)
        levels = self.backbone.pyramid(laterals)
        # [batch, unit, k, k, fpn] of each level -> [batch, unit, embed] -> [batch, unit, teacher]
        main = self.lm_head(self.norm(self.decoder_embed(levels)))
        grid = self.backbone.grid_of(images)
        # these blocks have bias tables in any case, and use them where the main blocks have some
        index = bias_index(self.shape.bias, grid, images.device)
        aux = features.tapped
        for block in self.cls_pt_layers:
            aux = block(aux, index, None, grid)
        return main, self.lm_cls_head(self.norm_cls(aux)), levels, aux

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses of {"images", "masked", "teacher"}, over all units."""
        main, aux, _, _ = self.predict(batch["images"], batch["masked"])
        of_main = token_loss(main, batch["teacher"])
        of_aux = token_loss(aux, batch["teacher"])
        return {"loss": of_main + of_aux, "loss/main": of_main, "loss/aux": of_aux}


class Classifier(nn.Module):
    """Classes from the mean of the main stage's tokens."""

    def __init__(self, shape: Shape, num_classes: int, head_std: float = 2e-5) -> None:
        super().__init__()
        self.backbone = HiViT(shape)
        self.fc_norm = nn.LayerNorm(shape.embed_dim, eps=shape.eps)
        self.head = nn.Linear(shape.embed_dim, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=head_std)
        nn.init.zeros_(self.head.bias)

    def pooled(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embed_dim"]:
        """The normalised mean token."""
        return self.fc_norm(self.backbone.encode(images).tokens.mean(1))

    def logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch num_classes"]:
        """One number a class."""
        return self.head(self.pooled(images))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy of {"images", "targets"}; targets are probabilities (mixed, smoothed)."""
        found = self.logits(batch["images"]).float()
        return {"loss": nn.functional.cross_entropy(found, batch["targets"])}
