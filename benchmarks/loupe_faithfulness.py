"""How good the explanations of a dual encoder are, over the photos of coco_mini_captions.

python benchmarks/loupe_faithfulness.py CHECKPOINT --out FOLDER    # JSON and Markdown

A photo takes part if a caption of it has the name of one of its objects of which there is one, and
the encoder sees its box. Wrong sentences are captions of the two photos after it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from rates import machine

from tenfold.data import catalog
from tenfold.data.images.decode import read_picture
from tenfold.files import read_object
from tenfold.report.claim import md_table
from tenfold.runner.explain import open_encoder
from tenfold.systems.loupe.explain import ExplainOptions
from tenfold.systems.loupe.explain.players import inside, players_of
from tenfold.systems.loupe.explain.study import Case, study


def cases(folder: Path, encoder: object, most: int) -> Iterator[Case]:
    """Photos, the first caption that names an object of which there is one, and its box."""
    said = read_object(folder / "captions.json", {"annotations": [dict], "images": [dict]})
    known = read_object(folder / "instances.json", {"annotations": [dict], "categories": [dict]})
    names = {one["id"]: one["name"] for one in known["categories"]}
    captions: dict[int, list[str]] = {}
    for one in said["annotations"]:
        captions.setdefault(one["image_id"], []).append(one["caption"])
    images, count = said["images"], 0
    for place, image in enumerate(images):
        objects: dict[str, list[list[float]]] = {}
        for one in known["annotations"]:
            if one["image_id"] == image["id"]:
                objects.setdefault(names[one["category_id"]], []).append(one["bbox"])
        named = [
            (caption, name)
            for caption in captions[image["id"]]
            for name, boxes in objects.items()
            if len(boxes) == 1 and name in caption.lower().split()
        ]
        if not named or count == most:
            continue
        caption, name = named[0]
        photo = read_picture(folder / "images" / image["file_name"])
        x, y, wide, tall = objects[name][0]
        high, long = photo.shape[:2]
        box = (max(0.0, x), max(0.0, y), min(x + wide, float(long)), min(y + tall, float(high)))
        parts = encoder.picture(photo)  # type: ignore[attr-defined]
        try:
            inside(players_of(parts.grid, parts.window, 64), box, (long, high))
        except ValueError:
            continue
        others = tuple(captions[images[(place + i) % len(images)]["id"]][0] for i in (1, 2))
        count += 1
        yield Case(photo, caption, others, name, box)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--absent", default="")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    before = machine()
    encoder, notes = open_encoder(args.checkpoint, args.absent)
    folder = catalog.find_or_explain("coco_mini_captions")
    options = replace(ExplainOptions(), pictures=args.pictures, regions=4)
    found = study(encoder, cases(folder, encoder, args.photos), options)
    result = {"machine": before, "encoder": encoder.name, "notes": list(notes),
              "photos": args.photos, "pictures": args.pictures,
              "measures": {k: [v.value, v.standard_error] for k, v in found.items()}}  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "loupe_faithfulness.json").write_text(json.dumps(result, indent=1) + "\n")
    rows = [[name, f"{one.value:.3f} ± {one.standard_error:.3f}"] for name, one in found.items()]
    page = "\n".join([
        f"# Explanations of {encoder.name}, over {args.photos} photos of coco_mini_captions", "",
        *md_table(["measure", "mean ± standard error"], rows, words=1), "",
    ])  # fmt: skip
    (args.out / "loupe_faithfulness.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()
