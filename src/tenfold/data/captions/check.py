"""Checks of sets of captions."""

from __future__ import annotations

import hashlib

from ..io.problems import Problems
from . import emoji, own

SCENES = {"train": 8000, "val": 500, "test": 1000, "test_xstyle": 500}
CONCEPTS = 794


def check_emoji_scenes(f: Problems) -> None:
    """Sheets, concepts, scenes; and the first four scenes drawn bit for bit."""
    try:
        recipe = emoji.read_recipe(f.folder)
    except (ValueError, FileNotFoundError) as error:
        f.problem(f.folder, str(error))
        return
    f.seen(2 + len(emoji.SHEETS))
    f.expect("concepts.json", "concepts", len(recipe.names), CONCEPTS)
    first: list[emoji.Scene] = []
    for split, expected in SCENES.items():
        file = f.folder / f"{split}.jsonl"
        lines = f.lines(file)
        f.published(file, "scenes", len(lines), expected)
        for number, line in enumerate(lines, 1):
            try:
                scene = emoji.read_scene(line, recipe, split == "test_xstyle")
            except ValueError as error:
                f.problem(file, f"line {number}: {error}")
                continue
            if split == "train" and number <= 4:
                first.append(scene)
    reference = f.json(f.folder / "render_check.json")
    if f.result.problems or reference is None:
        return
    sums = reference["sha1_of_first_4_train_renders"]
    for number, (scene, expected_sum) in enumerate(zip(first, sums, strict=False), 1):
        found = hashlib.sha1(emoji.draw(scene, recipe).tobytes()).hexdigest()
        f.expect("train.jsonl", f"SHA-1 of the drawn scene {number}", found, expected_sum)


def check_captions(f: Problems) -> None:
    """Every split is opened as training does, and its pictures are decoded."""
    try:
        splits = own.splits_of(f.key, f.folder)
    except (ValueError, FileNotFoundError) as error:
        f.problem(f.folder, str(error))
        return
    said: set[str] = set()
    for split in splits:
        try:
            found = own.open_set(f.key, f.folder, split)
        except (ValueError, FileNotFoundError) as error:
            if str(error) not in said:  # of one file that is divided into splits
                f.problem(f.folder, str(error))
            said.add(str(error))
            continue
        pairs = len(found)
        count = len(set(found.owners.tolist()))
        names = f", classes of objects {len(found.names)}" if found.names else ""
        f.note(f"{split}: captions {pairs}, pictures {count}{names}")
        for note in found.notes:
            f.note(f"{split}: {note}")
        seen = -1
        owners = found.owners
        for row in f.sample(list(range(pairs))):
            if owners[row] == seen:
                continue
            seen = owners[row]
            f.seen()
            try:
                found.pair(row)
                found.picture(row)
            except (ValueError, OSError) as error:
                f.problem(f.folder, str(error))


def has_captions(f: Problems) -> bool:
    """Return True for a folder that is a set of captions of some form."""
    try:
        own.form_of(f.folder)
    except FileNotFoundError:
        return False
    except ValueError:  # of a form, but not as it should be
        return True
    return True
