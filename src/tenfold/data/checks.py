"""Check a data set on disk: counts, shapes, value ranges, references; every bad file named."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from .captions import check as captions
from .catalog import entry, find_or_explain
from .images import check as images
from .images import check_parts, check_public, check_stores
from .io.problems import CheckResult, Problem, Problems
from .motion import check as motion
from .motion.bvh_folder import files_below
from .motion.check_bvh import check_bvh
from .text import check as text
from .weather import check as weather

__all__ = ["CheckResult", "Problem", "check"]

Check = Callable[[Problems], None]
OWN, MOTIONS = "folder", "bvh"
"""Stand for sets of the user's own, as in `data.name`: of pictures, and of BVH files."""


def _with_captions(check: Check, f: Problems) -> None:
    """A check of objects, and one of captions where there are any."""
    check(f)
    if captions.has_captions(f):
        captions.check_captions(f)


def _own(f: Problems) -> None:
    """A set of the user's own, of captions or of objects, maps and labels."""
    (captions.check_captions if captions.has_captions(f) else check_public.check_folder)(f)


CHECKS: dict[str, Check] = {
    "ade20k_sample": images.check_ade20k_sample,
    "camvid": images.check_camvid,
    "car_parts": images.check_car_parts,
    "clip_text": check_stores.check_clip_text,
    "clothing_parsing": images.check_clothing_parsing,
    "cmu_mocap": motion.check_cmu_mocap,
    "coco_mini_captions": images.check_coco_mini_captions,
    "coco_tiny": images.check_coco_tiny,
    "coco_wsss": images.check_coco_wsss,
    "emoji_scenes": captions.check_emoji_scenes,
    "fscil_index_lists": check_stores.check_fscil_index_lists,
    "nuclei_dsb2018": images.check_nuclei_dsb2018,
    "pangu_atmos": weather.check_pangu_atmos,
    "streetsim": images.check_streetsim,
    "textmix": text.check_textmix,
    "tiny_imagenet_20": check_stores.check_tiny_imagenet_20,
    "tiny_imagenet_fscil": check_stores.check_tiny_imagenet_fscil,
    "h36m": motion.check_h36m,
    "3dpw": motion.check_3dpw,
    "cifar100": check_stores.check_cifar100,
    "mini_imagenet": images.check_mini_imagenet,
    "cub200": images.check_cub200,
    "imagenet": check_public.check_imagenet,
    "ade20k": check_public.check_ade20k,
    "voc2012": check_public.check_voc2012,
    "coco2014": partial(_with_captions, check_public.check_coco2014),
    "coco2017": partial(_with_captions, check_public.check_coco2017),
    "flickr30k": captions.check_captions,
    "refcoco": captions.check_captions,
    "refcoco+": captions.check_captions,
    "refcocog": captions.check_captions,
    "cityscapes": check_public.check_cityscapes,
    "cityscapes_parts": check_parts.check_cityscapes_parts,
    "ade20k_parts": check_parts.check_ade20k_parts,
    "gta5": check_public.check_gta5,
    "synthia": check_public.check_synthia,
    "era5": weather.check_era5,
    OWN: _own,
    MOTIONS: check_bvh,
}


def check(name: str, path: str | Path = "", *, limit: int = 0) -> CheckResult:
    """Examine a data set on disk.

    Args:
        name: Name in the catalogue, or "folder" for a set of your own at `path`, which is
            found by looking: JSON of COCO's form, YOLO's text files, label maps, tables of
            labels, JSON of LabelMe, class folders; captions in tables, shards or public layouts;
            BVH files (which "bvh" names, too).
        path: Folder of the set; empty looks where $TENFOLD_DATA has it.
        limit: Files of each folder or array to decode, evenly spaced; 0 decodes all of them.

    Returns:
        Everything that is wrong inside the set, and notes; nothing of it is raised.

    Raises:
        ValueError: The name is unknown, or `limit` is negative.
        FileNotFoundError: The set is not there, or `path` is a file.
    """
    is_own = name in (OWN, MOTIONS)
    if not is_own:
        entry(name)
    if limit < 0:
        raise ValueError(f"limit must be 0 (everything) or more, got {limit}")
    if name == MOTIONS and not path:
        raise ValueError("say where the BVH files are: --path FOLDER")
    folder = Path(path).expanduser() if is_own else find_or_explain(name, path)
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist. Give the folder of your files.")
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: {folder} is a file; give the folder that holds the set.")
    if name == OWN and files_below(folder):
        name = MOTIONS
    problems = Problems(folder, limit, name)
    try:
        CHECKS[name](problems)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        # A JSON file that parses but lacks a field: say so rather than fail.
        problems.problem(folder, f"the check stopped at an unexpected structure: {error!r}")
    return problems.result
