"""Photos of classifiers: class folders, flat folders, the compact set; broken and hostile files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tenfold.data.images import classification
from tenfold.data.images.decode import Reading

SKIP = Reading(skip_broken=True)


def picture(path: Path, value: int = 100, size: tuple[int, int] = (20, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def tree(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 6) -> Path:
    for c, name in enumerate(classes):
        for i in range(each):
            picture(root / name / f"{i}.png", 10 * c + i)
    return root


def test_an_undivided_tree_is_divided_once_and_for_all(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    parts = [classification.open_class_folders(folder, split, 0.3, 0) for split in ("train", "val")]
    assert parts[0].classes == parts[1].classes == ("cat", "dog")
    assert [len(p) for p in parts] == [8, 4]
    assert not set(parts[0].names) & set(parts[1].names)
    picture(folder / "cat" / "new.png", 77)  # moves no other picture
    again = classification.open_class_folders(folder, "val", 0.3, 0)
    assert set(parts[1].names) - set(again.names) <= {"cat/new.png"} or len(again) >= 4
    assert parts[0].picture(0).shape == (16, 20, 3)


def test_train_and_val_folders(tmp_path: Path) -> None:
    tree(tmp_path / "train")
    tree(tmp_path / "val", each=2)
    found = classification.open_class_folders(tmp_path, "val", 0.2, 0)
    assert len(found) == 4 and found.labels.tolist() == [0, 0, 1, 1]
    picture(tmp_path / "val" / "emu" / "0.png")
    with pytest.raises(ValueError, match="train and val have different classes: emu"):
        classification.open_class_folders(tmp_path, "train", 0.2, 0)


def test_one_class_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, ("cat",))
    with pytest.raises(ValueError, match="one class folder, at least 2"):
        classification.open_class_folders(tmp_path, "train", 0.2, 0)


def test_a_lone_picture_cannot_be_divided(tmp_path: Path) -> None:
    tree(tmp_path, each=3)
    picture(tmp_path / "emu" / "0.png")
    with pytest.raises(ValueError, match="emu holds 1 picture.*none of which is left for train"):
        classification.open_class_folders(tmp_path, "train", 0.2, 0)


def test_a_truncated_jpeg_is_named_or_skipped(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    bad = picture(folder / "cat" / "bad.jpg", size=(64, 64))
    bad.write_bytes(bad.read_bytes()[:700])
    with pytest.raises(ValueError, match=r"bad\.jpg cannot be read.*data.skip_broken"):
        for split in ("train", "val"):
            classification.open_class_folders(folder, split, 0.3, 0)
    with pytest.warns(UserWarning, match=r"1 of \d+ pictures left out: .*bad\.jpg"):
        kept = [
            classification.open_class_folders(folder, s, 0.3, 0, SKIP) for s in ("train", "val")
        ]
    assert sum(map(len, kept)) == 12


def test_flat_folders(tmp_path: Path) -> None:
    tree(tmp_path / "deep")
    found = classification.open_flat(tmp_path)
    assert len(found) == 12 and set(found.labels.tolist()) == {-1} and found.classes == ()
    outside = picture(tmp_path.parent / "elsewhere.png")
    (tmp_path / "link.png").symlink_to(outside)
    with pytest.raises(ValueError, match="leads out of"):
        classification.open_flat(tmp_path)


def compact(folder: Path, **changes: np.ndarray) -> Path:
    """A small set in the layout of tiny_imagenet_20."""
    contents = [picture(folder / f"{i}.jpg", i, (64, 64)).read_bytes() for i in range(4)]
    ends = np.cumsum([0, *map(len, contents)])
    arrays = {
        "jpeg": np.frombuffer(b"".join(contents), dtype=np.uint8),
        "offsets": ends.astype(np.int64),
        "labels": np.array([0, 1, 1, 0], dtype=np.int16),
        "boxes": np.array([[0, 0, 63, 63], [5, 6, 20, 30], [1, 1, 2, 2], [0, 3, 9, 9]], np.int16),
        "names": np.array(["a", "b", "c", "d"]),
        "classes": np.array(["cat", "dog"]),
        "wnids": np.array(["n1", "n2"]),
    } | changes
    np.savez(folder / "train.npz", **arrays)
    return folder


def test_the_compact_set(tmp_path: Path) -> None:
    found = classification.open_tiny_imagenet_20(compact(tmp_path), "train")
    assert found.classes == ("cat", "dog") and found.picture(2).shape == (64, 64, 3)
    assert found.boxes is not None and found.boxes[1].tolist() == [5, 6, 21, 31]
    some = found.at(np.array([3, 1]))
    assert some.labels.tolist() == [0, 1] and np.array_equal(some.picture(0), found.picture(3))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (
            "labels",
            np.array([0, 1, 2, 0], dtype=np.int16),
            "picture 2 has label 2, allowed are 0-1",
        ),
        ("offsets", np.array([0, 9, 5, 7, 8]), "offsets do not rise"),
        ("boxes", np.full((4, 4), 64, dtype=np.int16), "not inside of its 64 x 64"),
        ("names", np.array(["a"]), "shapes"),
        ("jpeg", np.zeros(9, dtype=np.float32), "jpeg must be bytes"),
    ],
)
def test_a_damaged_compact_set_is_named(
    tmp_path: Path, key: str, value: np.ndarray, says: str
) -> None:
    folder = compact(tmp_path, **{key: value})
    with pytest.raises(ValueError, match=says):
        classification.open_tiny_imagenet_20(folder, "train")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"val\.npz"):
        classification.open_tiny_imagenet_20(tmp_path, "val")
    with pytest.raises(FileNotFoundError, match="is not there"):
        classification.open_flat(tmp_path / "nowhere")


def test_train_alone_is_divided_and_other_sets_are_no_classes(tmp_path: Path) -> None:
    tree(tmp_path / "a" / "train")
    found = classification.open_class_folders(tmp_path / "a", "val", 0.3, 0)
    assert len(found) == 4 and found.classes == ("cat", "dog")
    tree(tmp_path / "b", ("images", "masks"))
    with pytest.raises(ValueError, match="pictures with labels and no classes.*data.name photos"):
        classification.open_class_folders(tmp_path / "b", "train", 0.3, 0)


def test_folders_in_class_folders_and_links(tmp_path: Path) -> None:
    tree(tmp_path / "far")
    for name in ("black", "white"):
        picture(tmp_path / "set" / "cat" / name / "0.png", len(name))
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "far" / "dog")
    (tmp_path / "far" / "dog" / "round").symlink_to(tmp_path / "far" / "dog")
    with pytest.raises(ValueError, match=r"leads out of .*data\.follow_links"):
        classification.open_class_folders(tmp_path / "set", "train", 0.3, 0)
    links = Reading(follow_links=True)
    with pytest.warns(UserWarning, match=r"count to their class folder: cat \(black, white\)"):
        parts = [
            classification.open_class_folders(tmp_path / "set", split, 0.5, 0, links)
            for split in ("train", "val")
        ]
    assert [len(part) for part in parts] == [4, 4]


def test_a_picture_that_breaks_later_is_replaced_by_one_of_its_class(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    found = classification.open_class_folders(folder, "train", 0.3, 0, SKIP)
    row = int(np.flatnonzero(found.labels == 0)[-1])
    (folder / found.names[row]).write_bytes(b"gone")
    first = int(np.flatnonzero(found.labels == 0)[0])
    assert (found.picture(row) == found.picture(first)).all()
    assert list(found.replaced) == [found.names[row]]


def test_a_large_truncated_jpeg_is_found_when_the_set_is_opened(tmp_path: Path) -> None:
    folder = tree(tmp_path)
    bad = picture(folder / "cat" / "bad.jpg", size=(700, 700))
    bad.write_bytes(bad.read_bytes()[:-2000])
    assert bad.stat().st_size > 2**18
    with pytest.raises(ValueError, match=r"bad\.jpg cannot be read.*truncated"):
        for split in ("train", "val"):
            classification.open_class_folders(folder, split, 0.3, 0)
