"""Trees of boxes in boxes in COCOTree's form, drawn from a seed, and shaken ones of the same."""

from __future__ import annotations

import numpy as np

SIZE = (30, 40)
Item = dict


def runs_of(mask: np.ndarray) -> Item:
    """A mask as plain runs down the columns."""
    flat = np.concatenate([[0], mask.T.ravel().astype(int), [0]])
    edges = np.flatnonzero(np.diff(flat))
    return {"size": [*mask.shape], "counts": np.diff([0, *edges, mask.size]).tolist()}


def boxes(seed: int, shaken: bool = False) -> Item:
    """Wholes of three parts of two parts each; shaken: moved, lost, hung elsewhere, renamed."""
    shape, shake = np.random.RandomState(seed), np.random.RandomState(seed + 1000)
    nodes: list[Item] = []

    def add(name: str, parent: str, box: tuple[int, int, int, int]) -> str:
        x0, y0, x1, y1 = box
        if shaken:
            x1 += int(shake.rand() < 0.15)
            y0 += int(shake.rand() < 0.15)
        mask = np.zeros(SIZE, dtype=bool)
        mask[y0:y1, x0:x1] = True
        key = f"n{len(nodes)}"
        above = parent if parent == "ROOT" else f"s_{parent}"
        nodes.append(
            {
                "instance_id": key, "semantic_id": f"s_{key}", "label": name,
                "parent_instance_id": parent, "parent_semantic_id": above,
                "segmentation": runs_of(mask),
            }
        )  # fmt: skip
        return key

    for k in range(4):
        left, top, bottom = 10 * k, int(shape.randint(0, 3)), int(shape.randint(27, 31))
        whole = add(("van", "car")[k % 2], "ROOT", (left, top, left + 9, bottom))
        for j in range(3):
            if shaken and shake.rand() < 0.15:
                continue
            name = ("wheel", "door", "wheel")[j]
            name = "hatch" if shaken and shake.rand() < 0.05 else name
            part = add(name, whole, (left + 1, 3 + 8 * j, left + 8, 10 + 8 * j))
            for i in range(2):
                hung = whole if shaken and shake.rand() < 0.1 else part
                x = left + 2 + 3 * i
                add("rim", hung, (x, 4 + 8 * j, x + 3, 9 + 8 * j))
    if shaken:
        add("sign", "ROOT", (0, 0, 3, 3))
    return {"schema": "cocotree_prediction_v1", "image_id": seed, "nodes": nodes}
