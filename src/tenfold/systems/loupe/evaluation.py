"""Measures without training on boxes: retrieval, grounding, detection, and what games are worth.

Controls stand beside every number that a game has a part in: other captions, tokens at other
places, random confidences, and a region module that has not learned.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from tenfold.core.divide import divided
from tenfold.core.seed import generator
from tenfold.core.system import Evaluation
from tenfold.metrics import ap
from tenfold.metrics.grounding import grounding
from tenfold.metrics.retrieval import AT, retrieval
from tenfold.structures import Instances

from . import data
from .batches import Examples
from .config import Config
from .data import Captions
from .model import Networks, Regions, chosen, clipped, phrase_vectors, region_vectors
from .ranking import Ranked, of_chunk, summary
from .regions import RegionHead, centres
from .towers import normalised
from .words import Vocabulary
from .zero_shot import box_of_map, class_shares, class_vectors, detect, ground

CHUNK = 64
"""Pairs that are measured together, whatever the number of processes."""
PROMPTS = ("{}", "a {}")
"""Texts of a class, the mean of which is its vector."""
FREQUENT = 50
"""Classes of the second detection row: the most frequent of the training objects."""
MOST_COUNTED = 20_000
"""Training pairs whose objects are counted for it."""
IOUS = (0.3, 0.5)
WAYS = ("regions", "random", "untrained", "map")
"""Where the box of a phrase comes from: the region module; its boxes under random confidences; a
module that has not learned; the map of similarities of patches alone."""
PIXELS = 100.0
"""Side of the square on which boxes are compared."""
GROUPS = ("retrieval", "grounding", "detection", "ranking")
Metrics = dict[str, float]


@dataclass(frozen=True)
class Encodings:
    """Pairs of a split as the networks see them."""

    patches: Float[Tensor, "pair patch dim"]
    text: Float[Tensor, "pair dim"]
    words: Float[Tensor, "pair word dim"]
    batch: dict[str, Tensor]


@dataclass(frozen=True)
class Measured:
    """Results of a chunk of pairs."""

    images: Float[np.ndarray, "pair dim"]
    texts: Float[np.ndarray, "pair dim"]
    truth: Float[np.ndarray, "phrase 4"]
    boxes: dict[str, Float[np.ndarray, "phrase 4"]]
    points: Float[np.ndarray, "phrase 2"]
    objects: list[list[ap.Row]]
    detections: list[list[ap.Row]]
    ranked: Ranked


@dataclass(frozen=True)
class Details:
    """What pictures are made from."""

    captions: dict[str, Float[np.ndarray, "pair dim"]]
    """Split -> vectors of its captions."""


def evaluate(networks: Networks, cfg: Config, split: str) -> Evaluation:
    """Measure a split; with the test, every further test part of the set.

    Returns:
        "retrieval/<i2t|t2i>/R@K", "retrieval/both/rsum", "grounding/<way>/acc@0.5", .../acc@0.3,
        .../iou and .../pointing, "detection/<names>/AP@0.5" and .../AP@0.3,
        "ranking/<score>/AUC": how often the interaction of an object's patches is above that of
        another window of the picture, in percent. Another test part has its name behind the group.
    """
    networks.eval()
    metrics: Metrics = {}
    chance: Metrics = {}
    details: dict[str, Float[np.ndarray, "pair dim"]] = {}
    notes: list[str] = []
    often = frequent(cfg)
    for number, name in enumerate(splits(cfg, split)):
        suffix = f" {name.removeprefix('test_')}" if number else ""
        if name != split and not number:
            notes.append(f"the test is {name}")
        found = data.open_captions(cfg.data, name)
        parts = of_split(networks, cfg, found, name)
        # by their names: a part in a file of its own numbers its classes by itself
        known = [label for label, called in enumerate(found.names) if called in often]
        mine, by_chance = together(parts, found, cfg, known, name)
        metrics |= {_named(key, suffix): value for key, value in mine.items()}
        chance |= {_named(key, suffix): value for key, value in by_chance.items()}
        details[name] = np.concatenate([part.texts for part in parts])
        notes += [f"{name}: {note}" for note in data.notes_of(found)]
    return Evaluation(metrics, {"chance": chance}, Details(details), tuple(notes))


def splits(cfg: Config, split: str) -> list[str]:
    """Parts that are measured for one; the test of a set may be several, as RefCOCO's A and B."""
    every = [name for name in data.splits(cfg.data) if name != "train"]
    found = [name for name in every if name == split]
    if split == "test":
        found += [name for name in every if name.startswith("test") and name != "test"]
    if not found:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(every)}")
    return found


def _named(key: str, suffix: str) -> str:
    group, rest = key.split("/", 1)
    return f"{group}{suffix}/{rest}"


def rows_of(found: Captions, cfg: Config) -> Int64[np.ndarray, " pair"]:
    """Pairs that are measured: all captions of every so manieth picture."""
    return np.flatnonzero(found.owners % cfg.data.test_every == 0).astype(np.int64)


@torch.no_grad()
def of_split(networks: Networks, cfg: Config, found: Captions, name: str) -> list[Measured]:
    """Measure all pairs of a split, chunk by chunk; processes share the chunks."""
    rows = rows_of(found, cfg)
    chunks = np.array_split(rows, max(1, -(-len(rows) // CHUNK)))
    examples = Examples(cfg, found)
    classes = name_vectors(networks, examples.vocabulary, found.names)
    fresh = untrained(networks, cfg)

    def work(number: int) -> Measured:
        own = chunks[number].tolist()
        seen = encoded(networks, examples.batch(own))
        draw = generator(cfg.seed, "controls", name, number)
        return measured(networks, fresh, cfg, found, own, seen, classes, draw)

    return divided(len(chunks), work, f"measuring {name}")


def encoded(networks: Networks, batch: dict[str, Tensor]) -> Encodings:
    """Tokens and vectors of a batch."""
    device = next(networks.parameters()).device
    batch = {key: value.to(device) for key, value in batch.items()}
    patches = networks.encoder.image_tokens(normalised(batch["images"]))
    text, words = networks.encoder.text_tokens(batch["words"], batch["is_token"])
    return Encodings(patches.float(), text.float(), words.float(), batch)


def name_vectors(
    networks: Networks, vocabulary: Vocabulary, names: tuple[str, ...]
) -> Float[Tensor, "name dim"]:
    """Directions of names, by the prompts; none for no names."""
    device = next(networks.parameters()).device
    found = []
    for first in range(0, len(names), CHUNK):
        some = names[first : first + CHUNK]
        texts = [vocabulary.encode(p.format(name)) for name in some for p in PROMPTS]
        batch = vocabulary.batch(texts)
        vectors = networks.encoder.text_tokens(
            batch["words"].to(device), batch["is_token"].to(device)
        )[0]
        found.append(class_vectors(vectors.float().unflatten(0, (len(some), len(PROMPTS)))))
    width = networks.encoder.text_projection.out_features
    return torch.cat(found) if found else torch.zeros(0, width, device=device)


def untrained(networks: Networks, cfg: Config) -> RegionHead:
    """A region module as it was before it learned anything."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        fresh = RegionHead(cfg.dim, cfg.image.grid)
    return fresh.to(next(networks.parameters()).device)


def measured(
    networks: Networks,
    fresh: RegionHead,
    cfg: Config,
    found: Captions,
    rows: list[int],
    seen: Encodings,
    classes: Float[Tensor, "name dim"],
    draw: torch.Generator,
) -> Measured:
    """All that is measured of a chunk of pairs."""
    grid, device = cfg.image.grid, seen.patches.device
    confidence, boxes = networks.regions(seen.patches)
    chance = torch.rand(confidence.shape, generator=draw).to(device)
    given = {
        "regions": (confidence, boxes), "random": (chance, boxes), "untrained": fresh(seen.patches)
    }  # fmt: skip
    ways: dict[str, Regions] = {
        way: chosen(some, where, grid, cfg.games.regions, cfg.games.overlap)
        for way, (some, where) in given.items()
    }
    vectors = {way: region_vectors(seen.patches, some.members) for way, some in ways.items()}
    phrases = phrase_vectors(seen.words, seen.batch["spans"])
    sharp = 1 / float(networks.encoder.scale())
    truth, points, truths = [], [], []
    answers: dict[str, list[Float[np.ndarray, "4"]]] = {way: [] for way in WAYS}
    objects, detections = [], []
    for place, row in enumerate(rows):
        height, width = found.picture(row).shape[:2]
        size = np.array([width, height, width, height], dtype=np.float64)
        for number, span in enumerate(data.phrases_of(found.pair(row))):
            if not span.boxes or not bool(seen.batch["spans"][place, number].any()):
                continue
            truth.append(around(span.boxes) / size)
            phrase = phrases[place, number]
            for way, some in ways.items():
                score = ground(vectors[way][place], some.confidence[place], phrase, sharp)
                best = int(score.masked_fill(~some.there[place], -1).argmax())
                answers[way].append(clipped(some.boxes[place, best]).double().cpu().numpy())
            alike = F.normalize(seen.patches[place], dim=1) @ phrase
            points.append(centres(grid, alike)[int(alike.argmax())].double().cpu().numpy())
            answers["map"].append(np.array(box_of_map(alike.view(grid, grid).cpu().numpy())))
        true = found.objects(row)
        truths.append(true.boxes / size)
        if len(found.names):
            objects.append(_rows(true.boxes / size, true.labels, None))
            some = ways["regions"]
            there = some.there[place]
            shares = class_shares(vectors["regions"][place][there], classes, sharp)
            one = detect(clipped(some.boxes[place][there]), some.confidence[place][there], shares)
            detections.append(
                _rows(one.boxes.cpu().numpy(), one.labels.cpu().numpy(), one.scores.cpu().numpy())
            )
    ranked = of_chunk(
        seen.patches, seen.text, seen.words, seen.batch["is_word"], truths, grid, draw
    )
    return Measured(
        F.normalize(seen.patches.mean(1), dim=1).cpu().numpy(),
        F.normalize(seen.text, dim=1).cpu().numpy(),
        _stacked(truth, 4),
        {way: _stacked(some, 4) for way, some in answers.items()},
        _stacked(points, 2),
        objects,
        detections,
        ranked,
    )


def around(boxes: tuple[tuple[float, float, float, float], ...]) -> Float[np.ndarray, "4"]:
    """The box around all boxes of a phrase (Flickr30k Entities does so)."""
    every = np.array(boxes, dtype=np.float64)
    return np.concatenate([every[:, :2].min(0), every[:, 2:].max(0)])


def _stacked(rows: list[np.ndarray], width: int) -> Float[np.ndarray, "row width"]:
    return np.stack(rows) if rows else np.zeros((0, width))


def _rows(
    boxes: Float[np.ndarray, "object 4"],
    labels: Int64[np.ndarray, " object"],
    scores: Float[np.ndarray, " object"] | None,
) -> list[ap.Row]:
    """Objects in COCO's form, boxes as shares of the picture."""
    return ap.coded(Instances((PIXELS * boxes).astype(np.float64), labels, scores))


def frequent(cfg: Config) -> set[str]:
    """Names of the classes with most training objects."""
    found = data.open_captions(cfg.data, "train")
    rows = range(min(len(found), MOST_COUNTED)) if found.names else ()
    counts = Counter(label for row in rows for label in found.objects(row).labels.tolist())
    ranked = sorted(counts, key=lambda label: (-counts[label], label))
    return {found.names[label] for label in ranked[:FREQUENT]}


def together(
    parts: list[Measured], found: Captions, cfg: Config, known: list[int], name: str
) -> tuple[Metrics, Metrics]:
    """Metrics of a split by its chunks, and what chance would give."""
    metrics: Metrics = {}
    rows = rows_of(found, cfg)
    owners, firsts, place = np.unique(found.owners[rows], return_index=True, return_inverse=True)
    images = np.concatenate([part.images for part in parts])[firsts]
    texts = np.concatenate([part.texts for part in parts])
    for key, value in retrieval(images @ texts.T, place.astype(np.int64)).items():
        metrics[f"retrieval/{key if '/' in key else f'both/{key}'}"] = value
    each = np.bincount(place)
    chance = {f"retrieval/i2t/R@{k}": 100 * luck(each, k) for k in AT}
    chance |= {f"retrieval/t2i/R@{k}": 100 * min(1.0, k / len(owners)) for k in AT}
    truth = np.concatenate([part.truth for part in parts])
    if len(truth):
        points = np.concatenate([part.points for part in parts])
        for way in WAYS:
            boxes = np.concatenate([part.boxes[way] for part in parts])
            middle = points if way == "map" else (boxes[:, :2] + boxes[:, 2:]) / 2
            for key, value in grounding(boxes, truth, middle).items():
                metrics[f"grounding/{way}/{key}"] = value
        sides = truth[:, 2:] - truth[:, :2]
        chance["grounding/map/pointing"] = 100 * float(sides.prod(1).mean())
    objects = [row for part in parts for row in part.objects]
    detections = [row for part in parts for row in part.detections]
    if any(objects):
        metrics |= _detection(objects, detections, len(found.names), known)
    metrics |= summary([part.ranked for part in parts])
    chance |= {key: 50.0 for key in metrics if key.endswith("/AUC")}
    return metrics, chance


def luck(each: Int64[np.ndarray, " image"], first: int) -> float:
    """Chance that a caption of an image is among the first of all, which are in any order.

    Args:
        each: Captions of each image.
        first: So many are looked at.
    """
    every = int(each.sum())
    seen = np.arange(min(first, every))
    none = np.clip((every - each[:, None] - seen) / (every - seen), 0, 1).prod(1)
    return float(1 - none.mean())


def _detection(
    objects: list[list[ap.Row]], detections: list[list[ap.Row]], count: int, known: list[int]
) -> Metrics:
    """AP of all names at both IoUs, and of those that were frequent in training."""
    measured = ap.at_thresholds(objects, detections, count, "boxes", IOUS)
    found: Metrics = {}
    for iou, of in measured.items():
        some = [of.interpolated[label] for label in known if label in of.interpolated]
        found[f"detection/all names/AP@{iou}"] = of.mean_interpolated
        found[f"detection/all names/VOC AP@{iou}"] = of.mean_all_points
        if some:
            found[f"detection/frequent names/AP@{iou}"] = float(np.mean(some))
    return found
