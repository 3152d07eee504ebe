"""Files that one stage leaves to the next: seeds, sure labels, pseudo masks, one a picture.

Each kind has a folder with a `made.json` that says what its files follow from. Files of the same
making are kept, so that who is killed goes on where they were; others are deleted first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from tenfold.core import dist
from tenfold.core.divide import divided
from tenfold.data.feature_cache import digest_of
from tenfold.data.images.image_labels import Item
from tenfold.files import read_object, write_json
from tenfold.viz.predictions import output_name

Kind = Literal["seeds", "confident", "masks"]
ENDINGS: dict[Kind, str] = {"seeds": ".npz", "confident": ".png", "masks": ".png"}
MADE = "made.json"


class Work:
    """Files of a run's pictures by kind, below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def file(self, kind: Kind, item: Item) -> Path:
        """The file of a picture."""
        name = output_name(Path(item.name)) + ENDINGS[kind]
        return self.root / kind / name

    def digest(self, kind: Kind) -> str:
        """What the files of a kind follow from; empty if there are none."""
        file = self.root / kind / MADE
        return str(read_object(file, {"from": str}, ["from"])["from"]) if file.is_file() else ""

    def make(
        self, kind: Kind, items: Sequence[Item], digest: str,
        write: Callable[[Item, Path], None],
    ) -> None:  # fmt: skip
        """Write the files that are missing, each process its share; others' are deleted before.

        Args:
            kind: What they are.
            items: Pictures.
            digest: What the files follow from, see `digest_of_files`.
            write: Writes the file of a picture, whole or not at all.
        """
        world = dist.current()
        if world.is_first and self.digest(kind) != digest:
            folder = self.root / kind
            for file in sorted(folder.rglob(f"*{ENDINGS[kind]}")):
                file.unlink()
            write_json(folder / MADE, {"from": digest})
        world.barrier(patient=True)
        missing = [item for item in items if not self.file(kind, item).is_file()]
        missing = world.from_first([missing] * world.size)  # as the first sees them
        title = f"{kind} of pictures"
        divided(len(missing), lambda row: write(missing[row], self.file(kind, missing[row])), title)
        world.barrier(patient=True)


def digest_of_files(network: nn.Module | None, *what: object) -> str:
    """What files follow from: a network's weights, settings, and torch's version."""
    words = [json.dumps(str(one)) for one in (*what, torch.__version__)]
    if network is not None:
        return digest_of(network.state_dict(), *words)
    return hashlib.sha256("\n".join(words).encode()).hexdigest()
