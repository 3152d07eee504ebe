"""DTS: two groups of teacher and student, of which the second sees more of the target.

The authors published no code; this is our reading of the paper's section 3. Group 1 is the host
method as it is. Group 2 mixes target images with target images, and each group's pseudo labels
come from the other's teacher. The groups are trained one after the other within a step, so that
activations of one student are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from tenfold.core.seed import generator
from tenfold.data.images import mixing
from tenfold.nn.ema import alpha_at, set_teacher_mode, update_teacher
from tenfold.nn.hrda import Box, Hrda
from tenfold.nn.uperhead import enlarged

from .config import Config, Host, Recipe
from .hosts import Backward, Losses, Near, Pass, Work, train_group, train_pass
from .loss import IGNORED, Images, Labels, Logits, Provider, pseudo_labels, quality
from .model import Network, Networks, probabilities

Batch = Mapping[str, Any]
TEACHERS: dict[Provider, dict[int, tuple[int, ...]]] = {
    "own": {1: (1,), 2: (2,)},
    "cross": {1: (2,), 2: (1,)},
    "mean": {1: (1, 2), 2: (1, 2)},
    "1to2": {1: (1,), 2: (1,)},
    "2to1": {1: (2,), 2: (2,)},
}
"""Provider -> group -> the teachers whose probabilities it learns from, averaged."""


def averaged(probabilities: Sequence[Logits]) -> Logits:
    """Mean of the probabilities of several networks."""
    total = probabilities[0]
    for other in probabilities[1:]:
        total = total + other
    return total / len(probabilities) if len(probabilities) > 1 else total


def labelled(
    images: Images, probabilities: Logits, valid: Bool[Tensor, "batch height width"], host: Host
) -> Pass:
    """Target images with pseudo labels, weighted by their quality and 0 where not valid."""
    labels, confidence = pseudo_labels(probabilities)
    return Pass(images, labels, quality(confidence, host.threshold, host.quality) * valid)


def pasted(above: Pass, below: Pass, chosen: Bool[Tensor, "batch 256"]) -> Pass:
    """Paste the pixels of drawn classes of `above` over `below`: images, labels, weights."""
    mask = mixing.class_mask(above.labels, chosen)
    return Pass(
        mixing.paste(mask, above.images, below.images),
        mixing.paste(mask, above.labels, below.labels),
        mixing.paste(mask, above.weights, below.weights),
    )


def target_share(recipe: Recipe) -> float:
    """Share of the target among the pixels that group 2 trains on; ClassMix counts as half."""
    return {"s+st": 0.25, "s+tt": 0.5, "st+tt": 0.75}[recipe]


class Draws:
    """Random choices of one step, a function of (seed, group, step, place in the batch) alone."""

    def __init__(self, cfg: Config, batch: Batch) -> None:
        self.cfg = cfg
        self.index: int = batch["index"]
        self.places: list[int] = batch["places"]
        """Places of this process's images in the whole batch."""

    def _generator(self, what: str, group: int, *place: int) -> torch.Generator:
        return generator(self.cfg.seed, what, group, self.index, *place)

    def classes(self, what: str, group: int, labels: Labels) -> Bool[Tensor, "batch 256"]:
        """Half of the classes of each image."""
        if self.cfg.host.compat:
            draw = self._generator(what, group, *self.places[:1])
            return mixing.draw_classes(labels, draw, compat=True)
        rows = [
            mixing.draw_classes(labels[row : row + 1], self._generator(what, group, place))
            for row, place in enumerate(self.places)
        ]
        return torch.cat(rows)

    def strong(self, what: str, group: int) -> mixing.Strong:
        """Jitter and blur: whether at all is drawn for the whole batch."""
        host, draw = self.cfg.host, self._generator(what, group)
        size = self.cfg.data.batch_size
        drawn = mixing.draw_strong(size, draw, host.jitter, host.jitter_strength, host.blur)
        return mixing.Strong(
            tuple(drawn.jitters[place] for place in self.places if drawn.jitters),
            tuple(drawn.sigmas[place] for place in self.places if drawn.sigmas),
        )

    def kept(self, group: int, height: int, width: int) -> Bool[Tensor, "batch 1 height width"]:
        """Pixels that a block mask keeps."""
        host, draw = self.cfg.host, self._generator("blocks", group)
        drawn = mixing.draw_blocks(self.cfg.data.batch_size, height, width, host.mask_block, draw)
        return mixing.block_mask(drawn[self.places], host.mask_ratio, height, width)

    def box(self, what: str, group: int, network: Network) -> Box | None:
        """Detail crop of a pass, for the whole batch; None where there is one resolution."""
        if not isinstance(network, Hrda):
            return None
        return network.draw_box(*self.cfg.data.crop, self._generator(f"{what} detail", group))


class SourceTraining:
    """The step of the stage before adaptation: labelled source images, changed in colours."""

    def __init__(self, cfg: Config, networks: Networks) -> None:
        self.cfg, self.networks = cfg, networks

    def __call__(self, model: nn.Module, batch: Batch, backward: Backward) -> Losses:
        """Train student 1 on a batch; returns the loss."""
        draws = Draws(self.cfg, batch)
        shown = strengthened(of_source(batch, 1), draws.strong("source augmentation", 0))
        box = draws.box("source", 0, self.networks.student(1))
        return {"loss": train_pass(model, 1, replace(shown, box=box), backward)["entropy"]}


class SelfTraining:
    """The step of a stage of adaptation, with one group (the host alone) or two.

    Args:
        cfg: Configuration of the run.
        networks: Students and teachers.
        frozen: Encoder whose features the students' shall stay near; None for none.
        draws: Class of the random choices.
        is_continued: Whether the teachers are averages from the start: of a run that goes on.
    """

    def __init__(
        self,
        cfg: Config,
        networks: Networks,
        frozen: nn.Module | None = None,
        draws: type[Draws] = Draws,
        is_continued: bool = False,
    ) -> None:
        self.cfg, self.networks, self.frozen, self.draws = cfg, networks, frozen, draws
        self.is_continued = is_continued

    @property
    def groups(self) -> range:
        """Numbers of the groups."""
        return range(1, self.networks.num_groups + 1)

    def provider(self, step: int) -> Provider:
        """The provider of pseudo labels at a step: at first each group's own teacher."""
        is_early = step < self.cfg.groups.warmup or self.networks.num_groups == 1
        return "own" if is_early else self.cfg.groups.provider

    def sides(self, group: int) -> str:
        """Target images that a group needs labels of: "a", or "ab"."""
        return "ab" if group == 2 and self.cfg.groups.recipe != "s+st" else "a"

    def __call__(self, model: nn.Module, batch: Batch, backward: Backward) -> Losses:
        """Train each group's student on a batch; returns the losses."""
        draws = self.draws(self.cfg, batch)
        targets = self.label(batch)
        found: Losses = {}
        for group in self.groups:
            work = self.work(group, batch, targets[group], draws)
            parts = train_group(model, group, work, self.cfg.host, backward)
            found |= {f"loss/{part}{group}": value for part, value in parts.items()}
        total = torch.stack(list(found.values())).sum()
        weights = {f"quality{g}": targets[g]["a"].weights.mean() for g in self.groups}
        return {"loss": total, **found, **weights}

    def label(self, batch: Batch) -> dict[int, dict[str, Pass]]:
        """Pseudo labels of the target images by group and side, by the teachers in charge."""
        provider = self.provider(batch["index"] // self.cfg.loop.accumulate)
        seen: dict[tuple[int, str], Logits] = {}
        found: dict[int, dict[str, Pass]] = {}
        for group in self.groups:
            found[group] = {}
            for side in self.sides(group):
                images, valid = batch[f"target_{side}"], batch[f"valid_{side}"]
                teachers = TEACHERS[provider][group]
                for teacher in teachers:
                    if (teacher, side) not in seen:
                        network = self.networks.teacher(teacher)
                        if not network.training:  # it was measured in between
                            set_teacher_mode(network)
                        seen[teacher, side] = probabilities(network, images)
                given = averaged([seen[teacher, side] for teacher in teachers])
                found[group][side] = labelled(images, given, valid, self.cfg.host)
        return found

    def work(self, group: int, batch: Batch, target: dict[str, Pass], draws: Draws) -> Work:
        """What a group's student learns from: its recipe of images."""
        recipe = self.cfg.groups.recipe if group == 2 else "s+st"
        first = source = of_source(batch, group)
        known = source.labels
        if recipe == "st+tt":
            chosen = draws.classes("source classes", group, source.labels)
            first = pasted(source, target["b"], chosen)
            first = strengthened(first, draws.strong("first augmentation", group))
            # the distance of features is of labelled source pixels, here of those that were pasted
            known = known.masked_fill(~mixing.class_mask(known, chosen), IGNORED)
        near = self._near(first.images, known)
        if recipe == "s+st":
            chosen = draws.classes("source classes", group, source.labels)
            mixed = pasted(source, target["a"], chosen)
        else:
            chosen = draws.classes("target classes", group, target["a"].labels)
            mixed = pasted(target["a"], target["b"], chosen)
        mixed = strengthened(mixed, draws.strong("augmentation", group))
        masked = self._masked(group, target["a"], draws)
        network = self.networks.student(group)
        first = replace(first, box=draws.box("source", group, network))
        mixed = replace(mixed, box=draws.box("mixed", group, network))
        if masked is not None:
            masked = replace(masked, box=draws.box("masked", group, network))
        return Work(first, mixed, masked, near)

    def _masked(self, group: int, target: Pass, draws: Draws) -> Pass | None:
        """Target images of which blocks are missing (MIC, section 3.2)."""
        if not self.cfg.host.has_masks:
            return None
        changed = strengthened(target, draws.strong("masked augmentation", group))
        kept = draws.kept(group, *target.images.shape[2:]).to(target.images.device)
        return Pass(changed.images * kept, target.labels, target.weights)

    def _near(self, images: Images, known: Labels) -> Near | None:
        """What the features of images shall stay near, where they have true labels."""
        if self.frozen is None:
            return None
        height, width = images.shape[2:]
        if any(self.cfg.model.detail):  # it sees the context, as the student's features are of it
            images = enlarged(images, (height // 2, width // 2))
        with torch.inference_mode():
            features: Tensor = self.frozen(images)[-1]
        return Near(features.clone(), known)  # a graph may not hold tensors of inference mode

    def after_step(self, step: int) -> None:
        """Move each teacher towards its student.

        The official code does so at the beginning of the next step, which is the same.
        """
        for group in self.groups:
            most = self.cfg.host.alpha
            alpha = most if self.is_continued else alpha_at(step + 1, most)
            update_teacher(self.networks.teacher(group), self.networks.student(group), alpha)


def of_source(batch: Batch, group: int) -> Pass:
    """A group's labelled images, whose labels are true."""
    images, labels = batch[f"source{group}"], batch[f"labels{group}"]
    return Pass(images, labels, torch.ones_like(labels, dtype=images.dtype))


def strengthened(shown: Pass, drawn: mixing.Strong) -> Pass:
    """A pass whose images are changed in colours and blurred."""
    return Pass(mixing.strong(shown.images, drawn), shown.labels, shown.weights)
