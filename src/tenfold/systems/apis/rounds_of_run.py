"""Rounds of a run: what was asked between its stages, and the network after each, as files.

`rounds/answers.jsonl` has all answers in order, `rounds/made.json` what those of each round follow
from (weights, settings, earlier answers): a round of the same making is kept, so that who is killed
goes on where it was, and others are asked again. `rounds/<stage>.json` has the points of a stage in
the published layout, `rounds/<stage>.safetensors` the weights after it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tenfold.core import checkpoint, dist
from tenfold.core.divide import divided
from tenfold.data.feature_cache import digest_of
from tenfold.data.images.instances import Point
from tenfold.data.images.points import drawn_points
from tenfold.files import read_object, write_json, write_text
from tenfold.journal import events
from tenfold.nn.condinst import CondInst

from . import data, inference, settings
from .answers import Answer, standing
from .config import Config
from .rounds import stage_points, stage_text
from .selection import LEAST_DRAWN, answered, ask, random_questions, unmasked
from .strategies import pixel_box


@dataclass(frozen=True)
class Cost:
    """What was said until the end of a stage."""

    objects: int
    """Objects that were trained on."""
    answers: int
    """Yes and no."""
    unsure: int
    """Answers that say neither."""
    fallback: int
    """Pixels that were drawn, as nothing predicted their objects."""
    seconds: float
    """Of boxes, masks and answers."""


class RunRounds:
    """Answers and networks of a run."""

    def __init__(self, network: CondInst, cfg: Config, work: Path) -> None:
        self.network, self.cfg = network, cfg
        self.folder = work / "rounds"
        self.stages = settings.stages(cfg)
        self.train = data.open_set(cfg.data, "train")
        self._shapes = {shape.id: shape for one in self.train.pictures for shape in one.asked}
        self._rounds = [self._initial()]
        """Answers of every round that is known, from that of the first stage."""

    @property
    def last(self) -> str:
        """Name of the last stage."""
        return self.stages[-1]

    @property
    def _log(self) -> Path:
        return self.folder / "answers.jsonl"

    # --- answers -------------------------------------------------------------------------------

    def _initial(self) -> list[Answer]:
        """Answers about the random points of the first stage, which no file needs to keep."""
        places = range(self.cfg.points.initial)
        if not places:
            return []
        shapes = unmasked(list(self._shapes.values()), self.cfg)
        questions = random_questions(shapes, self._drawn, places)
        return answered(questions, self._shapes, self.cfg, 0)

    @cached_property
    def _content(self) -> dict[str, Any]:
        return data.content(self.cfg.data, self.train)

    @cached_property
    def _drawn(self) -> dict[int, np.ndarray]:
        """Random pixels of each object, of which the rounds take the first ones."""
        own = self.cfg.points
        count = max(LEAST_DRAWN, own.initial + own.rounds * own.per_object)
        return drawn_points(self._content, count, own.seed)

    def ask(self, number: int) -> None:
        """Ask what a round asks, by what the network has learned until now; or take its answers.

        All processes call it, each does its share.
        """
        self.network.eval()
        digest = self._digest(number)
        made = self._made()
        world = dist.current()
        world.barrier(patient=True)  # none writes before all have looked
        if made.get(str(number)) == digest:
            self._rounds = self._read(number)
            return
        del self._rounds[number:]
        found: list[Answer] = []
        if self.cfg.points.strategy != "none":
            questions = ask(
                self.network, self.cfg, self.train, number, self._labelled(), self._drawn
            )
            found = answered(questions, self._shapes, self.cfg, number)
        self._rounds.append(found)
        if world.is_first:  # who is killed between the two files asks again, to the same answers
            said = [one for some in self._rounds for one in some]
            write_text(self._log, "".join(json.dumps(one.event()) + "\n" for one in said))
            text = stage_text(self._content, said, number + 1, even=True)
            write_text(self.folder / f"{self.stages[number]}.json", text)
            kept = {key: value for key, value in made.items() if int(key) < number}
            write_json(self.folder / "made.json", {**kept, str(number): digest})
        world.barrier(patient=True)

    def _labelled(self) -> dict[int, np.ndarray]:
        found: dict[int, list[tuple[int, int]]] = {}
        for some in self._rounds:
            for one in some:
                if one.label != "skip":
                    found.setdefault(one.annotation, []).append((one.x, one.y))
        return {key: np.array(pixels, dtype=np.int64) for key, pixels in found.items()}

    def _made(self) -> dict[str, str]:
        file = self.folder / "made.json"
        return read_object(file, {"*": str}) if file.is_file() else {}

    def _digest(self, number: int) -> str:
        """What the answers of a round follow from."""
        cfg = self.cfg
        before = [one.event() for some in self._rounds[:number] for one in some]
        words = (cfg.data, cfg.points, cfg.oracle, cfg.seed, cfg.detection, torch.__version__)
        texts = [json.dumps(before), *(str(word) for word in words)]
        return digest_of(self.network.state_dict(), *texts)

    def _read(self, number: int) -> list[list[Answer]]:
        """Answers of the log up to a round."""
        found: list[list[Answer]] = [[] for _ in range(number + 1)]
        if self._log.is_file():
            for one in standing(events(self._log)):
                if one.round <= number:
                    found[one.round].append(one)
        return found

    def answers(self, stage: str) -> list[Answer]:
        """All answers until a stage, from the files if they have not been asked for here.

        Without files, of weights alone, those of the first stage.
        """
        number = self.stages.index(stage)
        if number >= len(self._rounds) and self._log.is_file():
            self._rounds = self._read(len(self.stages) - 1)
        return [one for some in self._rounds[: number + 1] for one in some]

    def known(self, stage: str) -> Callable[[int], tuple[Point, ...]]:
        """The points of each object that a stage trains on: those of its file, then answers."""
        asked = stage_points(self.answers(stage), len(self.stages))
        shapes = self._shapes

        def of(annotation: int) -> tuple[Point, ...]:
            given = shapes[annotation].points if annotation in shapes else ()
            places, labels = asked.get(annotation, ([], []))
            said = (Point(x, y, label) for (x, y), label in zip(places, labels, strict=True))  # type: ignore[arg-type]
            return (*given, *said)

        return of

    def cost(self, stage: str) -> Cost:
        """What was said until the end of a stage, and how long it takes."""
        own, answers = self.cfg.oracle, self.answers(stage)
        masked = sum(data.is_masked(self.cfg, shape) for shape in self._shapes.values())
        given = [point for shape in self._shapes.values() for point in shape.points]
        boxes = len(self._shapes) - masked
        return Cost(
            len(self._shapes),
            sum(one.is_point for one in answers) + len(given),
            sum(one.label is None for one in answers),
            sum(one.source == "fallback" for one in answers),
            boxes * own.seconds_box
            + masked * own.seconds_mask
            + sum(one.seconds for one in answers)
            + sum(point.seconds or own.seconds_point for point in given),
        )

    # --- networks ------------------------------------------------------------------------------

    def keep(self, stage: str) -> None:
        """Write the weights after a stage, unless they are there."""
        world = dist.current()
        if stage != self.last and world.is_first:  # those of the last one are the run's
            file = self._weights(stage)
            digest = digest_of(self.network.state_dict())
            if not file.is_file() or self._kept().get(stage) != digest:
                checkpoint.write_tensors(file, self.network.state_dict())
                write_json(self.folder / "networks.json", {**self._kept(), stage: digest})
        world.barrier(patient=True)

    def _kept(self) -> dict[str, str]:
        file = self.folder / "networks.json"
        return read_object(file, {"*": str}) if file.is_file() else {}

    def _weights(self, stage: str) -> Path:
        return self.folder / f"{stage}.safetensors"

    def networks(self, network: CondInst) -> Iterator[tuple[str, CondInst]]:
        """The networks after each stage whose weights are there, the last one's in any case."""
        for stage in self.stages[:-1]:
            if self._weights(stage).is_file():
                other = deepcopy(network)
                other.load_state_dict(checkpoint.read_tensors(self._weights(stage)))
                yield stage, other
        yield self.last, network

    def note(self, measured: int) -> str:
        """A remark where the networks of earlier stages are not there; else nothing."""
        if measured == len(self.stages):
            return ""
        return (
            "the run's folder is not there: only its last network is measured, and of its answers "
            "only the first ones are known"
        )

    def agreement(self, network: CondInst) -> dict[str, float]:
        """Share of the answers that the masks in the boxes agree with; no measure of new pictures.

        For sets without masks.
        """
        known = self.known(self.last)

        def one(row: int) -> tuple[int, int]:
            objects = self.train.pictures[row]
            if not any(known(shape.id) for shape in objects.asked):
                return 0, 0
            seen = inference.see(network, self.cfg, self.train.picture(row))
            boxes = [shape.box for shape in objects.asked]
            right = count = 0
            for shape, maps in zip(
                objects.asked, inference.committee(network, seen, boxes), strict=True
            ):
                x0, y0, x1, y1 = pixel_box(shape.box, objects.height, objects.width)
                said = maps.mean(0) > 0.5 if len(maps) else np.zeros(maps.shape[1:], dtype=bool)
                for point in known(shape.id):
                    if point.label in (0, 1):
                        inside = x0 <= point.x < x1 and y0 <= point.y < y1
                        on = bool(inside and said[point.y - y0, point.x - x0])
                        right, count = right + (on == (point.label == 1)), count + 1
            return right, count

        parts = divided(len(self.train), one, "answers of the training pictures")
        right, count = (sum(values) for values in zip(*parts, strict=True))
        return {"agreement/final/points": 100 * right / count if count else 0.0}
