"""The page's network as a backend of Label Studio: regions for its tasks.

Requests and answers are those of label_studio_ml/api.py. A task's photo is found by its name among
those of the page: no address that is sent is ever opened.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from statistics import fmean
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tenfold.data.images import exchange
from tenfold.data.images.album import Album
from tenfold.data.images.crops import Crop
from tenfold.data.images.exchange_label_studio import FILE, kind_of
from tenfold.data.images.instances import Said
from tenfold.files import NUMBER, misfit

from .answers import Answer
from .exports import object_set
from .labelled import Known
from .labels import cut_box
from .looking import Looking

TAG = re.compile(r"<(RectangleLabels|BrushLabels|KeyPointLabels)\b([^<>]*)>")
NAME, TO = re.compile(r"\bname=[\"']([^\"'<>]*)"), re.compile(r"\btoName=[\"']([^\"'<>]*)")
REGION = {
    "id": str, "type": (str, None), "from_name": str, "is_positive": bool,
    "value": {"x": NUMBER, "y": NUMBER, "width": NUMBER, "height": NUMBER,
              "rectanglelabels": [str], "keypointlabels": [str]},
}  # fmt: skip
PLACE = {"rectanglelabels": ("x", "y", "width", "height"), "keypointlabels": ("x", "y")}
"""Type of drawn regions that are answered -> where they are, in percent of the picture."""
OFF = ("off", "not", "negative", "background")
"""Beginnings of labels of key points that are not on the object."""
MOST_TASKS = 100
Masked = tuple[Known, Crop | None]
"""An object, and the mask that the network makes of it."""


@dataclass(frozen=True)
class Studio:
    """What predictions are made of."""

    album: Album
    looking: Looking
    classes: Sequence[str]
    known: Callable[[str], list[Masked]]
    """The page's objects of a picture, with their masks."""
    version: str

    def predictions(
        self, tasks: Sequence[Any], context: Mapping[str, Any], config: str
    ) -> list[dict[str, Any]]:
        """A prediction for each task; of one whose photo is not here it is empty.

        Args:
            tasks: Tasks of Label Studio.
            context: Regions that its user has just drawn: a rectangle, key points in it.
            config: Its labelling interface; regions that it has no tag for are left out.

        Raises:
            ValueError: There are too many tasks, or a drawn region is none.
        """
        if len(tasks) > MOST_TASKS:
            raise ValueError(f"{len(tasks)} tasks at once; at most {MOST_TASKS} are answered")
        tags = tags_of(config)
        found = []
        for task in tasks:
            number = picture_of(task["data"], self.album)
            made, score = ([], 0.0) if number is None else self._objects(number, context, tags)
            results = [tagged(one, tags) for one in self._regions(made)]
            found.append({
                "model_version": self.version,
                "score": score,
                "result": [one for one in results if one is not None],
            })  # fmt: skip
        return found

    def _objects(
        self, number: int, context: Mapping[str, Any], tags: Mapping[str, tuple[str, str]]
    ) -> tuple[list[Masked], float]:
        """What was drawn just now; else what the page has; else what the network finds.

        The score is the mean certainty of the page's objects, or the mean score of those found.
        """
        mine = self.known(self.album.names[number])
        if drawn := context.get("result"):
            return self._drawn(number, drawn_of(drawn, tags), mine), 1.0
        if not mine:
            found, scores = self._proposed(number)
            return found, fmean(scores) if scores else 0.0
        seen = [self.looking.known(one.id) for one, _ in mine]
        return mine, fmean(1.0 if one is None else 1.0 - one.unsure for one in seen)

    def _drawn(
        self, number: int, regions: Sequence[tuple[str, Mapping[str, Any]]], mine: Sequence[Masked]
    ) -> list[Masked]:
        height, width = self.album.picture(number).shape[:2]
        boxes = [r for kind, r in regions if kind == "rectanglelabels"]
        points = [
            (_pixel(r, "x", width), _pixel(r, "y", height), int(_is_on(r)))
            for kind, r in regions
            if kind == "keypointlabels"
        ]
        if boxes:
            value = boxes[-1]["value"]
            x0, y0 = value["x"] * width / 100, value["y"] * height / 100
            x1, y1 = x0 + value["width"] * width / 100, y0 + value["height"] * height / 100
            box = cut_box([x0, y0, x1, y1], height, width)
            label = next(iter(value.get("rectanglelabels", [])), self.classes[0])
            name = label if label in self.classes else self.classes[0]
            one = self._made(number, 1, box, name, (height, width))
        else:  # points alone are of the smallest object around the first
            every = mine or self._proposed(number)[0]
            around = [one for one, _ in every if points and _holds(one, points)]
            if not around:
                return []
            one = min(around, key=lambda o: (o.box[2] - o.box[0]) * (o.box[3] - o.box[1]))
        one = replace(one, answers=(*one.answers, *(_answer(one.id, p) for p in points)))
        return [(one, self.looking.mask(one, self.classes.index(one.name)))]

    def _proposed(self, number: int) -> tuple[list[Masked], list[float]]:
        """Objects that the network finds, and their scores."""
        height, width = self.album.picture(number).shape[:2]
        found: list[Masked] = []
        scores = []
        for place, (box, label, score) in enumerate(
            self.looking.proposed(self.album.names[number]), 1
        ):
            one = self._made(number, place, box, self.classes[label], (height, width))
            found.append((one, self.looking.mask(one, label)))
            scores.append(float(score))
        return found, scores

    def _made(
        self, number: int, place: int, box: Sequence[float], name: str, size: tuple[int, int]
    ) -> Known:
        x0, y0, x1, y1 = (float(value) for value in box)
        said = Said("model", "", self.version)
        return Known(place, self.album.names[number], size, name, (x0, y0, x1, y1), said)

    def _regions(self, made: Sequence[Masked]) -> list[dict[str, Any]]:
        """Regions as they are written for Label Studio."""
        objects = object_set(made, self.classes, self.album, self.version)
        with tempfile.TemporaryDirectory(prefix="tenfold-studio-") as place:
            exchange.write(objects, Path(place), "label_studio")
            tasks = json.loads((Path(place) / FILE).read_text(encoding="utf-8"))
        return [
            region
            for task in tasks
            for part in (*task["annotations"], *task["predictions"])
            for region in part["result"]
        ]


def tags_of(config: str) -> dict[str, tuple[str, str]]:
    """Type of regions -> name of their tag and of what it labels; empty for no interface."""
    found: dict[str, tuple[str, str]] = {}
    for tag, attributes in TAG.findall(config):
        name, to = NAME.search(attributes), TO.search(attributes)
        if name and to:
            found.setdefault(tag.lower(), (name[1], to[1]))
    return found


def drawn_of(
    regions: Any, tags: Mapping[str, tuple[str, str]]
) -> list[tuple[str, Mapping[str, Any]]]:
    """Rectangles and key points that were drawn, with their types; other regions are left out.

    A region that states no type is of the tag that it is from, or of the kind of its labels.

    Raises:
        ValueError: One is no region, is of no type that can be told, or is nowhere.
    """
    if problem := misfit(regions, [REGION], "context.result"):
        raise ValueError(problem)
    kinds = {name: kind for kind, (name, _) in tags.items()}
    found = []
    for place, region in enumerate(regions):
        where = f"context.result[{place}] (id {region.get('id', '')[:40]!r})"
        kind = region.get("type") or kinds.get(region.get("from_name", "")) or kind_of(region)
        if not kind:
            raise ValueError(
                f"{where} states no type, and neither its from_name nor labels in its value tell "
                f"it; send type, {' or '.join(PLACE)}"
            )
        if kind not in PLACE:
            continue
        if lacks := [key for key in PLACE[kind] if key not in region.get("value", {})]:
            raise ValueError(f"{where} is of type {kind} and lacks value.{', value.'.join(lacks)}")
        found.append((kind, region))
    return found


def tagged(region: dict[str, Any], tags: Mapping[str, tuple[str, str]]) -> dict[str, Any] | None:
    """A region under the names of an interface; None if that has no tag for it."""
    if not tags:
        return region
    if region["type"] not in tags:
        return None
    name, to = tags[region["type"]]
    return {**region, "from_name": name, "to_name": to}


def picture_of(data: Mapping[str, Any], album: Album) -> int | None:
    """The photo of a task, by the end of an address in it; None if it is not here.

    Label Studio puts eight letters and a hyphen before the names of files that were uploaded.
    """
    for value in data.values():
        if not isinstance(value, str) or len(value) > 4000:
            continue
        try:
            address = urlsplit(value)
        except ValueError:  # no address
            continue
        local = parse_qs(address.query).get("d")
        path = PurePosixPath(local[0] if local else unquote(address.path))
        parts = [part for part in path.parts if part not in ("/", "..")]
        names = ["/".join(parts[start:]) for start in range(len(parts))]
        names += [parts[-1].partition("-")[2]] if parts else []
        for name in names:
            if (number := album.number(name)) is not None:
                return number
    return None


def _pixel(region: Mapping[str, Any], axis: str, side: int) -> int:
    return min(max(int(region["value"][axis] * side / 100), 0), side - 1)


def _is_on(region: Mapping[str, Any]) -> bool:
    labels = region["value"].get("keypointlabels", [])
    return region.get("is_positive", not any(one.lower().startswith(OFF) for one in labels))


def _holds(one: Known, points: Sequence[tuple[int, int, int]]) -> bool:
    x0, y0, x1, y1 = one.pixels
    return x0 <= points[0][0] < x1 and y0 <= points[0][1] < y1


def _answer(number: int, point: tuple[int, int, int]) -> Answer:
    return Answer("label-studio", number, point[0], point[1], 1 if point[2] else 0, "human")
