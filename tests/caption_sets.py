"""Small sets of pictures with captions, as they are published and as people have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CANVAS, CELL, COLUMNS = 16, 8, 2
CONCEPTS = ("cat", "dog", "old car")
SCENE = {
    "bg": "red", "items": [[0, 0, 1, 2, 4], [2, 1, 8, 8, 8]],
    "caption": "a cat and an old car on a red background",
    "phrases": [[0, 5, 0], [10, 20, 1], [24, 40, -1]],
}  # fmt: skip


def emoji(folder: Path, scene: dict[str, Any] = SCENE, **changes: Any) -> Path:
    """A folder in the layout of emoji_scenes, each split of two scenes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = -(-len(CONCEPTS) // COLUMNS)
    for seed, artist in enumerate(("google", "twitter")):
        drawn = np.random.default_rng(seed).integers(
            0, 256, (rows * CELL, COLUMNS * CELL, 4), dtype=np.uint8
        )
        drawn[..., 3] = np.where(drawn[..., 3] > 128, 255, drawn[..., 3])
        Image.fromarray(drawn).save(folder / f"sprites_{artist}.webp", lossless=True, exact=True)
    concepts = [{"id": i, "name": name} for i, name in enumerate(CONCEPTS)]
    meta = {
        "canvas": CANVAS, "sizes": [4, 8], "colours": {"red": [200, 60, 60]},
        "vendors": ["google", "twitter"], "twitter_held_out": [1], "sprite": CELL,
        "columns": COLUMNS, **changes,
    }  # fmt: skip
    (folder / "concepts.json").write_text(json.dumps(concepts))
    (folder / "meta.json").write_text(json.dumps(meta))
    unseen = {"bg": "red", "items": [[1, 1, 0, 0, 8]], "caption": "a dog", "phrases": [[0, 5, 0]]}
    for split in ("train", "val", "test", "test_xstyle"):
        one = unseen if split == "test_xstyle" else scene
        (folder / f"{split}.jsonl").write_text(f"{json.dumps(one)}\n" * 2)
    return folder
