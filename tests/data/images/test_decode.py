"""Users' pictures: every mode becomes upright RGB, and what is damaged is named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tenfold.data.images import decode
from tenfold.data.images.decode import (
    read_picture,
    read_pictures,
    square,
)
from tenfold.data.images.folders import class_folders, inside_of, photos
from tenfold.data.images.stored import open_stored


def photo(file: Path, colour=(200, 30, 60), size=(12, 8), **more) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(file, **more)
    return file


def classes(root: Path, *names: str, each: int = 2) -> Path:
    for name in names:
        for i in range(each):
            photo(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("LA", (0, 0), (255, 255, 255)),
        ("LA", (40, 255), (40, 40, 40)),
        ("RGBA", (0, 0, 255, 51), (204, 204, 255)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 32896, (128, 128, 128)),
        ("I", 257, (1, 1, 1)),
    ],
)
def test_every_mode_becomes_rgb_over_white(tmp_path, mode, value, expected):
    file = tmp_path / ("a.tif" if mode == "I" else "a.png")
    Image.new(mode, (3, 2), value).save(file)
    got = read_picture(file)
    assert got.shape == (2, 3, 3) and got.dtype == np.uint8
    assert (got == expected).all()


def test_palettes_with_a_transparent_colour_and_cmyk(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 250, 0, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.gif", transparency=1)
    assert read_picture(tmp_path / "a.gif").tolist() == [[[10, 20, 30], [255, 255, 255]]]
    Image.new("CMYK", (1, 1), (0, 255, 255, 0)).save(tmp_path / "a.tif")
    assert read_picture(tmp_path / "a.tif").tolist() == [[[255, 0, 0]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_followed(tmp_path, orientation):
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    upright = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.swapaxes(0, 1), 6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).swapaxes(0, 1), 8: np.rot90(pixels),
    }  # fmt: skip
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), upright[orientation])


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert (read_picture(tmp_path / "a.webp") == (255, 0, 0)).all()


def test_a_cut_off_jpeg_and_what_is_no_picture_are_named(tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "post.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(ValueError, match=r"cut.jpg cannot be read: .*truncated"):
        read_picture(tmp_path / "cut.jpg")
    for name in ("text.jpg", "empty.png", "post.png"):
        with pytest.raises(ValueError, match=rf"{name} is not a picture") as caught:
            read_picture(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"gone.png is not there"):
        read_picture(tmp_path / "gone.png")


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_give_a_picture_or_one_named_line(tmp_path, seed):
    random = np.random.RandomState(seed)
    ending = ("png", "jpg", "tif", "webp", "gif", "bmp", "ppm")[seed % 7]
    pixels = random.randint(0, 256, (9, 7, 3)).astype(np.uint8)
    file = tmp_path / f"a.{ending}"
    Image.fromarray(pixels).save(file)
    content = bytearray(file.read_bytes())
    for place in random.randint(0, len(content), 4):
        content[place] = random.randint(256)
    file.write_bytes(content)
    try:
        assert read_picture(file).shape[2] == 3
    except ValueError as error:
        assert file.name in str(error) and "\n" not in str(error)


def test_too_many_pixels_are_refused_before_decoding(tmp_path, monkeypatch):
    file = photo(tmp_path / "a.png", size=(40, 30))
    Image.init()  # one of its plugins loads an image of its own
    monkeypatch.setattr(decode, "MAX_PIXELS", 1199)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("was decoded"))
    with pytest.raises(ValueError, match=r"a.png cannot be read: it has 40 x 30 pixels, more than"):
        read_picture(file)


def test_values_that_are_no_grey_levels_are_refused(tmp_path):
    Image.new("I", (2, 2), 70000).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a.tif .*70000..70000.*8 or 16 bits"):
        read_picture(tmp_path / "a.tif")
    Image.new("I", (2, 2), 142).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a.tif .*32 bits a value, but none above 142"):
        read_picture(tmp_path / "a.tif")
    Image.new("I;16", (2, 2), 142).save(tmp_path / "b.tif")  # dark, but of 16 bits
    assert read_picture(tmp_path / "b.tif").max() == 1
    Image.new("F", (2, 2), 0.5).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a.tif .*floating-point"):
        read_picture(tmp_path / "a.tif")


def test_very_narrow_pictures_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a.png .*303 x 3 pixels, too narrow"):
        read_picture(photo(tmp_path / "a.png", size=(303, 3)))


def test_square_keeps_the_centre_or_stretches():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (square(wide, 10, "shorter") == 200).all()
    np.testing.assert_array_equal(square(wide, 10, "shorter"), wide[:, 10:20])
    stretched = square(wide, 10, "stretch")
    assert stretched.shape == (10, 10, 3)
    assert stretched[5, 0, 0] == 0 and stretched[5, 5, 0] == 200
    # antialiasing: a fine checkerboard becomes grey, not black or white
    board = np.indices((64, 64)).sum(0)[..., None].repeat(3, 2) % 2 * 255
    assert abs(square(board.astype(np.uint8), 8, "shorter").astype(int) - 127).max() <= 8


def test_many_pictures_come_in_order_with_labels_and_names(tmp_path):
    files = [photo(tmp_path / "x" / f"{i}.png", (i, 0, 9)) for i in (3, 1, 2)]
    got = read_pictures(files, [2, 0, 1], 4, "shorter")
    assert got.images.shape == (3, 3, 4, 4) and got.images[:, 0, 0, 0].tolist() == [3, 1, 2]
    assert got.labels.tolist() == [2, 0, 1] and got.names == ("x/3.png", "x/1.png", "x/2.png")
    some = got.at(torch.tensor([2, 2, 0]))
    assert some.labels.tolist() == [1, 1, 2] and some.names[0] == "x/2.png" and len(some) == 3


def test_a_broken_picture_stops_or_is_left_out_with_a_warning(tmp_path):
    files = [photo(tmp_path / f"{i}.png", (i, 0, 9)) for i in range(3)]
    files[1].write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"1.png is not a picture"):
        read_pictures(files, [0, 1, 2], 4, "shorter")
    with pytest.warns(UserWarning, match=r"1 of 3 pictures left out: .*1.png"):
        got = read_pictures(files, [0, 1, 2], 4, "shorter", skip_broken=True)
    assert got.labels.tolist() == [0, 2] and got.images[:, 0, 0, 0].tolist() == [0, 2]
    with pytest.raises(ValueError, match=r"no picture can be read"):
        read_pictures(files[1:2], [0], 4, "shorter", skip_broken=True)


def test_memory_is_computed_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match=r"need 4\.\d GiB .*limit of 4 GiB.*data.size"):
        read_pictures([tmp_path / "gone"] * 400_000, [0] * 400_000, 64, "shorter")


def test_class_folders_are_sorted_and_hidden_files_are_ignored(tmp_path):
    classes(tmp_path, "b", "a")
    for name in ("a/.hidden.png", "a/notes.txt", ".git/x.png", "__MACOSX/x.png", "a/Z.WEBP"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = class_folders(tmp_path)
    assert list(found) == ["a", "b"]
    assert [file.name for file in found["a"]] == ["0.png", "1.png", "Z.WEBP"]


def test_folders_that_are_no_classes_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone"):
        class_folders(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"holds no class folder"):
        class_folders(tmp_path)
    with pytest.raises(ValueError, match=r"holds one class folder, at least 2"):
        class_folders(classes(tmp_path / "one", "a"))
    (classes(tmp_path / "empty", "a", "b") / "c").mkdir()
    with pytest.raises(ValueError, match=r"c holds no picture"):
        class_folders(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"'Red  Fox' and 'red fox' differ in capitals or spaces"):
        class_folders(classes(tmp_path / "twice", "red fox", "Red  Fox"))


def test_links_that_leave_the_folder_are_refused(tmp_path):
    inside = classes(tmp_path / "inside", "a", "b")
    outside = classes(tmp_path / "outside", "c")
    (inside / "a" / "own.png").symlink_to(inside / "a" / "0.png")
    assert len(class_folders(inside)["a"]) == 3
    (inside / "b" / "secret.png").symlink_to(outside / "c" / "0.png")
    with pytest.raises(ValueError, match=r"secret.png leads out of"):
        class_folders(inside)
    (inside / "b" / "secret.png").unlink()
    (inside / "c").symlink_to(outside / "c")
    with pytest.raises(ValueError, match=r"inside/c leads out of"):
        class_folders(inside)


def test_names_that_lead_out_of_a_folder_are_refused_whatever_links_may(tmp_path):
    root = classes(tmp_path / "inside", "a")
    outside = classes(tmp_path / "outside", "c") / "c"
    (root / "link").symlink_to(outside)
    assert inside_of(root, root / "link/0.png", follow_links=True).is_file()
    for name in ("../outside/c/0.png", "link/../c/0.png", str(outside / "0.png")):
        for follow in (False, True):
            with pytest.raises(ValueError, match="leads out of .* by its name. Copy"):
                inside_of(root, root / name, follow)


def test_photos_of_one_class(tmp_path):
    classes(tmp_path, "a")
    assert [file.name for file in photos(tmp_path / "a")] == ["0.png", "1.png"]
    with pytest.raises(ValueError, match=r"holds no picture"):
        photos(tmp_path)


def stored(file: Path, **change) -> Path:
    """Three 4x4 PNG files in an npz, with whatever is to be wrong."""
    contents = []
    for i in range(3):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(file.with_suffix(".png"))
        contents.append(file.with_suffix(".png").read_bytes())
    arrays = {
        "jpeg": np.frombuffer(b"".join(contents), np.uint8),
        "offset": np.cumsum([0, *(len(content) for content in contents)]),
        "label": np.array([0, 1, 1], np.uint8),
        "name": np.array(["x", "y", "z"]),
    } | change
    np.savez(file, **{key: value for key, value in arrays.items() if value is not None})
    return file


def test_stored_pictures_are_read_by_row(tmp_path):
    got = open_stored(stored(tmp_path / "a.npz"), 4, 2).read([2, 0])
    assert got.images[:, 0, 0, 0].tolist() == [2, 0] and got.labels.tolist() == [1, 0]
    assert got.names == ("z", "x")
    with pytest.raises(ValueError, match=r"picture 1 \(y\) has 4 x 4 pixels, expected 8"):
        open_stored(tmp_path / "a.npz", 8, 2).read([1])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"label": np.array([0, 1, 7], np.uint8)}, r"picture 2 has label 7, allowed are 0-1"),
        ({"label": np.array([0, 1])}, r"n, n and n \+ 1"),
        ({"offset": np.array([0, 5, 3, 9])}, r"offset does not rise"),
        ({"offset": np.array([0.0, 1, 2, 3])}, r"must be uint8, offset int64"),
        ({"name": None}, r"lacks the arrays name"),
        ({"name": np.array([print, 1, 2], dtype=object)}, r"cannot be read as an npz.*pickle"),
        ({"jpeg": np.zeros(30, np.uint8), "offset": np.array([0, 10, 20, 30])}, r"\(x\) is not a"),
    ],
)
def test_wrong_stores_are_refused(tmp_path, change, says):
    file = stored(tmp_path / "a.npz", **change)
    with pytest.raises(ValueError, match=says):
        open_stored(file, 4, 2).read([0])


def test_a_store_that_is_cut_short_or_missing_is_refused(tmp_path):
    file = stored(tmp_path / "a.npz")
    content = file.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 30):
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"a.npz.*Prepare the set again"):
            open_stored(file, 4, 2)
    with pytest.raises(ValueError, match=r"b.npz is missing"):
        open_stored(tmp_path / "b.npz", 4, 2)
