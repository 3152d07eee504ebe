"""Readers of trees, segments and parts with a small valid sample, for `readers.py`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from metrics.nested_boxes import boxes


def parts_tiff(folder: Path) -> None:
    from tenfold.data.images import panoptic_parts

    uids = np.full((12, 16), 7, dtype=np.int32)
    uids[2:8, 3:9], uids[2:5, 3:9] = 26_001, 2_600_101
    panoptic_parts.write(folder / "a.tif", uids)


def read_parts(folder: Path) -> None:
    from tenfold.data.images import panoptic_parts

    (file,) = folder.iterdir()
    panoptic_parts.tree_of(panoptic_parts.read(file))


def parts_spec(folder: Path) -> None:
    (folder / "a.yaml").write_text(
        "name: ours\nscene_class2part_classes: {sky: [], car: [window, wheel]}\n"
        "scene_classes_with_instances: [car]\n"
    )


def read_spec(folder: Path) -> None:
    from tenfold.data.images import panoptic_parts

    (file,) = folder.iterdir()
    panoptic_parts.read_spec(file)


def ade(folder: Path) -> None:
    from tenfold.data.images import runs

    code = runs.codes_of(np.arange(192).reshape(12, 16) // 60)
    objects = [
        {"id": i, "name": name, "wordnet": name, "part_level": int(i > 1),
         "part_of": 0 if i > 1 else None, "visible": code[i]["counts"]}
        for i, name in enumerate(("car", "sky", "door"))
    ]  # fmt: skip
    content = {"image": "a.webp", "height": 12, "width": 16, "objects": objects}
    (folder / "a.json").write_text(json.dumps(content))


def read_ade(folder: Path) -> None:
    from tenfold.data.images import ade20k

    (file,) = folder.iterdir()
    picture = ade20k.read(file)
    ade20k.tree_of(picture)
    ade20k.prepare(picture)


def coco_panoptic(folder: Path) -> None:
    from tenfold.data.images import coco_panoptic, coco_tree

    tree = coco_tree.tree_of(boxes(0))
    coco_panoptic.write(folder, [tree], ["van", "car"], ["car"])


def read_coco_panoptic(folder: Path) -> None:
    from tenfold.data.images import coco_panoptic

    found = coco_panoptic.open_panoptic(folder / "panoptic.json", folder / "panoptic")
    for row in range(len(found)):
        found.tree(row)


def cocotree(folder: Path) -> None:
    (folder / "a.json").write_text(json.dumps(boxes(0)))


def read_cocotree(folder: Path) -> None:
    from tenfold.data.images import coco_tree

    (file,) = folder.iterdir()
    coco_tree.read(file)
    coco_tree.read(file, "overlap")


def links(folder: Path) -> None:
    from tenfold.data.images import coco_tree, relations

    relations.write(folder / "a.json", coco_tree.tree_of(boxes(0)))


def read_links(folder: Path) -> None:
    from tenfold.data.images import relations

    (file,) = folder.iterdir()
    relations.read(file)


def tree(folder: Path) -> None:
    from tenfold.data.images import coco_tree
    from tenfold.systems.virreq import trees

    trees.write(folder / "a.json", coco_tree.tree_of(boxes(0)))


def read_tree(folder: Path) -> None:
    from tenfold.systems.virreq import trees

    (file,) = folder.iterdir()
    trees.read(file)


def knowledge(folder: Path) -> None:
    from tenfold.systems.virreq import knowledge_sets

    knowledge_sets.of_parts(classes=["sky", "person", "car", "bus"]).write(folder / "a.json")


def read_knowledge(folder: Path) -> None:
    from tenfold.systems.virreq import knowledge

    (file,) = folder.iterdir()
    knowledge.read(file)


TREE_READERS = {
    "panoptic parts": (parts_tiff, read_parts),
    "names of parts": (parts_spec, read_spec),
    "ADE20K": (ade, read_ade),
    "COCO panoptic": (coco_panoptic, read_coco_panoptic),
    "COCOTree": (cocotree, read_cocotree),
    "X-AnyLabeling": (links, read_links),
    "tree": (tree, read_tree),
    "knowledge base": (knowledge, read_knowledge),
}
"""Name -> what writes a sample into an empty folder, and what reads it."""
