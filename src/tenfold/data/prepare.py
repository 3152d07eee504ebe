"""Turn original files into the compact form that tenfold's readers like best.

Every recipe writes into a temporary folder beside `out`; the results are renamed into place only
when all of them are complete. Recipes follow the README of each compact set.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from .catalog import entry
from .images.prepare import camvid, tiny_imagenet_20, tiny_imagenet_fscil
from .io.recipe import Recipe, move_into_place, refuse_existing
from .motion.prepare import cmu_mocap
from .text.prepare import textmix


def prepare(
    name: str, source: str | Path, out: str | Path, *, overwrite: bool = False
) -> list[Path]:
    """Write the compact form of data set `name`, made from the originals in `source`, to `out`.

    Returns the files and folders written. Raises FileNotFoundError if the source lacks
    something, and ValueError for damaged originals, for results that exist already (unless
    `overwrite`), and for sets that need no preparation or have no recipe.
    """
    item = entry(name)
    if name not in RECIPES:
        reason = (
            "nothing to prepare: tenfold reads the original files as they are"
            if item.preparation == "as is"
            else f"no recipe: the compact form was made once from {item.origin}"
        )
        raise ValueError(f"{name}: {reason}. Expected layout: {item.layout}.")
    source, out = Path(source).expanduser(), Path(out).expanduser()
    if not source.is_dir():
        raise FileNotFoundError(f"{name}: {source} is not a folder. Expected: {item.obtain}.")
    recipe, products = RECIPES[name]
    if out.resolve() == source.resolve():
        raise ValueError(f"{name}: {out} is the source itself. Choose another output folder.")
    if not overwrite:
        refuse_existing(out, products)  # before the work, where the products are known
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".prepare-", dir=out) as temporary:
        made = Path(temporary) / "made"
        made.mkdir()
        recipe(source, made)
        if not overwrite:
            refuse_existing(out, [file.name for file in made.iterdir()])
        return [move_into_place(file, out / file.name) for file in sorted(made.iterdir())]


# CMU Mocap -----------------------------------------------------------------------------------


# Text mix ------------------------------------------------------------------------------------


# CamVid --------------------------------------------------------------------------------------


# Tiny ImageNet -------------------------------------------------------------------------------


RECIPES: dict[str, tuple[Recipe, tuple[str, ...]]] = {
    "cmu_mocap": (cmu_mocap, ("benchmark.npz",)),
    "textmix": (textmix, ("manifest.json",)),
    "camvid": (camvid, ("train", "trainannot", "val", "valannot", "test", "testannot")),
    "tiny_imagenet_20": (tiny_imagenet_20, ("train.npz", "val.npz")),
    "tiny_imagenet_fscil": (
        tiny_imagenet_fscil,
        ("train_base.npz", "train_novel.npz", "test.npz", "classes.json", "index_list"),
    ),
}
"""Function of each recipe, and the files that it always leaves in the output folder."""
