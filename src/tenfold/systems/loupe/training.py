"""What a dual encoder learns from: the contrastive loss, and two proxies that are thrown away.

Interactions of a picture's patches supervise the confidences of its regions (L_TSA), those of
regions and phrases their alignment (L_FSA). Neither adds anything to the encoder.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from . import loss, semantics
from .config import Config
from .games import Estimate, Sampling, SummedTokens, exact, tokens
from .model import Networks, Regions, chosen, phrase_vectors, region_vectors
from .regions import hard_members, jittered, soft_members
from .towers import normalised
from .unsil import Standard, Unsil, hybrid, sigma

Losses = dict[str, Tensor]


class Training(nn.Module):
    """The networks with the losses of a configuration."""

    def __init__(self, cfg: Config, networks: Networks) -> None:
        super().__init__()
        self.cfg = cfg
        self.encoder = networks.encoder
        if cfg.loss.has_regions:
            self.regions = networks.regions
        if cfg.loss.has_regions and cfg.games.how == "unsil":
            self.unsil, self.standard = Unsil(cfg.dim), Standard()

    def forward(self, batch: dict[str, Any]) -> Losses:
        """Losses of {"images", "words", "is_token", "is_word", "spans", "captions", "step"}."""
        cfg, step = self.cfg, batch["step"]
        patches = self.encoder.image_tokens(normalised(batch["images"]))
        text, words = self.encoder.text_tokens(batch["words"], batch["is_token"])
        scale, captions = self.encoder.scale(), batch["captions"]
        found = {
            "contrastive": loss.contrastive_loss(
                F.normalize(patches.mean(1), dim=1), F.normalize(text, dim=1), scale, captions
            )
        }
        total = found["contrastive"]
        if cfg.loss.fine:
            found["fine"] = self._fine(patches, words, batch["is_word"], scale, captions)
            total = total + cfg.loss.fine * found["fine"]
        logged: Losses = {}
        if cfg.loss.has_regions:
            with torch.autocast(patches.device.type, enabled=False):
                parts, logged = self._proxies(
                    patches.float(), text.float(), words.float(), batch["spans"], step
                )
            weight = ramp(step / cfg.steps, cfg.loss.ramp)
            weights = {"token": cfg.loss.token, "semantic": cfg.loss.semantic, "boxes": 1.0}
            for name, part in parts.items():
                # the predictor learns from the first game on: it has no say in the others
                total = total + (weights[name] * weight if name in weights else 1.0) * part
            found |= parts
        found = {f"loss/{name}": value for name, value in found.items()}
        return {"loss": total, **found, **logged, "scale": scale.detach()}

    def _fine(
        self, patches: Tensor, words: Tensor, is_word: Tensor, scale: Tensor, captions: Tensor
    ) -> Tensor:
        """FILIP's loss; the longest text differs between processes, so that all are filled up."""
        if is_shared():
            rest = self.cfg.text.most - words.shape[1]
            words, is_word = F.pad(words, (0, 0, 0, rest)), F.pad(is_word, (0, rest))
        return loss.fine_loss(patches, words, is_word, scale, captions)

    def _proxies(
        self, patches: Tensor, text: Tensor, words: Tensor, spans: Tensor, step: int
    ) -> tuple[Losses, Losses]:
        """Losses of the region module, and what is logged beside them."""
        cfg = self.cfg
        confidence, boxes = self.regions(patches)
        if ramp(step / cfg.steps, cfg.loss.ramp) == 0:  # nothing is learned from games yet
            rest = 0 * (confidence.sum() + boxes.sum())
            if cfg.games.how == "unsil":
                rest = rest + 0 * sum(p.sum() for p in self.unsil.parameters())
            return {"token": rest}, {}
        regions = chosen(confidence, boxes, cfg.image.grid, cfg.games.regions, cfg.games.overlap)
        log_chance = None
        if cfg.loss.boxes in ("drawn", "both"):
            drawn, log_chance = jittered(regions.boxes)
            members = hard_members(drawn, cfg.image.grid, regions.own)
            regions = replace(regions, members=members)
        found, parts, logged = self._token_game(patches.detach(), text.detach(), regions, step)
        size = regions.members.sum(2)
        # a lone patch has no interaction: its 0 would be the highest among numbers below 0
        counted = regions.there & (size > 1) & (area_of(regions.boxes) <= cfg.loss.largest)
        each = found.value / (size - 1).clamp(min=1)
        if cfg.loss.turned:
            each = -each
        if cfg.loss.clear:
            error = found.standard_error / (size - 1).clamp(min=1)
            counted = counted & loss.is_clear(each, error, counted)[:, None]
        target = loss.token_targets(each, counted)
        parts["token"] = loss.token_loss(regions.confidence, target, counted) * fair(counted.sum())
        if log_chance is not None:
            parts["boxes"] = loss.box_loss(log_chance, target, counted) * fair(counted.sum())
        if cfg.loss.semantic:
            parts["semantic"] = self._semantic(patches, words, spans, regions)
        for name, value in (("interaction", found.value), ("interaction by members", each)):
            logged[f"games/{name}"] = (value * counted).sum() / counted.sum().clamp(min=1)
        logged["games/counted"] = counted.float().mean()
        logged["games/size"] = size.float().mean()
        return parts, {name: value.detach() for name, value in logged.items()}

    def _token_game(
        self, patches: Tensor, text: Tensor, regions: Regions, step: int
    ) -> tuple[Estimate, Losses, Losses]:
        """Interactions of regions, losses of their predictor, and how good it is."""
        games = self.cfg.games
        texts = self._texts(text)
        if games.how != "unsil":
            return self._played(patches, texts, regions.members), {}, {}
        first = math.ceil(self.cfg.loss.ramp[0] * self.cfg.steps)
        found = hybrid(
            self.unsil, self.standard, patches, text, regions.members,
            lambda rows, masks: self._played(patches[rows], texts[rows], masks),
            step - first < games.always, games.limit, games.share,
        )  # fmt: skip
        sampled = found.sampled & regions.there
        self.standard.update(found.interaction[sampled])
        true = self.standard.standardised(found.interaction)
        parts = {
            "unsil": loss.predictor_loss(found.predicted, found.log_variance, true, sampled)
            * fair(sampled.sum())
        }
        off = (true - found.predicted).abs() / sigma(found.log_variance)
        logged = {
            "games/sampled": sampled.sum() / regions.there.sum(),
            "games/calibration": off[sampled].mean() if sampled.any() else off.new_zeros(()),
            "games/spearman": spearman(found.predicted[sampled], true[sampled]),
        }
        return Estimate(found.interaction, found.standard_error, games.samples), parts, logged

    def _texts(self, text: Float[Tensor, "image dim"]) -> Float[Tensor, "image text dim"]:
        """Texts that each image is scored with; its own is the first, and of length 1.

        Others are of the images behind it in the batch of all processes, so that their number
        changes nothing. The cosine is linear in the direction of the text: its interactions under
        one text less their mean under others are those under the difference of the directions.
        """
        games, directions = self.cfg.games, F.normalize(text, dim=1)
        is_contrast = games.score == "contrast"
        if not is_contrast and self.cfg.loss.target == "right":
            return directions[:, None]
        every = loss.gathered(directions)
        own = torch.arange(len(text), device=text.device)
        if len(every) > len(text):
            own = own + dist.get_rank() * len(text)
        count = min(games.texts - 1 if is_contrast else self.cfg.loss.others, len(every) - 1)
        rows = own[:, None] + torch.arange(count + 1, device=text.device)
        found = every[rows % len(every)]
        if is_contrast or not count:
            return found
        return found[:, :1] - found[:, 1:].mean(1, keepdim=True)

    def _played(self, patches: Tensor, texts: Tensor, members: Tensor) -> Estimate:
        """Interactions under the first text of each image, by playing."""
        games = self.cfg.games
        if games.how == "exact":
            value = _exact(patches, texts[:, 0], members)
            found = Estimate(value, torch.zeros_like(value), 2 ** patches.shape[1])
        else:
            contrast = float(self.encoder.scale().detach()) if games.score == "contrast" else 0.0
            found = tokens.interactions(
                patches, texts, members, Sampling(games.samples), contrast=contrast
            )
            found = Estimate(found.value[..., 0], found.standard_error[..., 0], found.samples)
        length = texts[:, 0].norm(dim=1)[:, None]  # a difference has another than 1
        return Estimate(length * found.value, length * found.standard_error, found.samples)

    def _semantic(self, patches: Tensor, words: Tensor, spans: Tensor, regions: Regions) -> Tensor:
        """L_FSA: shares of regions and phrases towards what their own interactions say."""
        cfg = self.cfg.loss
        is_soft = cfg.boxes in ("soft", "both")
        members = soft_members(regions.boxes, self.cfg.image.grid) if is_soft else regions.members
        is_phrase = spans.any(2)
        alike = semantics.cosines(region_vectors(patches, members), phrase_vectors(words, spans))
        shares = semantics.shares(alike, is_phrase, cfg.temperature)
        gained = semantics.interactions(shares.detach(), regions.there, is_phrase)
        wanted = semantics.targets(
            gained.masked_fill(~is_phrase[:, None], -torch.inf), cfg.form
        ).nan_to_num(0)
        wanted = wanted * regions.there[..., None]
        return loss.semantic_loss(shares, wanted) * fair((wanted.sum(2) > 0).sum())


def _exact(
    patches: Float[Tensor, "image patch dim"],
    texts: Float[Tensor, "image dim"],
    members: Bool[Tensor, "image region patch"],
) -> Float[Tensor, "image region"]:
    """Interactions by the values of all coalitions."""
    count = patches.shape[1]
    return torch.stack(
        [
            exact.interactions(exact.table(SummedTokens(own, text), count), regions)
            for own, text, regions in zip(patches, texts, members, strict=True)
        ]
    )


def ramp(done: float, ends: tuple[float, float]) -> float:
    """Weight of the proxies from 0 to 1 by the share of steps that is done."""
    low, high = ends
    if done < low or high == low:
        return float(done >= high)
    return min(1.0, (done - low) / (high - low))


def is_shared() -> bool:
    """Whether several processes share a batch."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def fair(count: Tensor) -> Tensor:
    """Factor that makes a mean over this process's items its part of the mean over all items."""
    total = count.detach().float().clone()
    if not is_shared():
        return torch.ones_like(total)
    dist.all_reduce(total)
    return count.float() * dist.get_world_size() / total.clamp(min=1)


def area_of(boxes: Float[Tensor, "*image box 4"]) -> Float[Tensor, "*image box"]:
    """Areas of boxes as far as they lie in the image."""
    inside = boxes.detach().clamp(0, 1)
    return (inside[..., 2:] - inside[..., :2]).clamp(min=0).prod(-1)


def spearman(one: Float[Tensor, " row"], other: Float[Tensor, " row"]) -> Float[Tensor, ""]:
    """Correlation of ranks; 0 for fewer than two."""
    if len(one) < 2:
        return one.new_zeros(())
    ranks = torch.stack([one, other]).argsort(1).argsort(1).float()
    return torch.corrcoef(ranks)[0, 1].nan_to_num(0)
