"""Every reader of users' files, with a small valid sample: what `mutate.py` damages and reads."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import lzma
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from caption_readers import CAPTION_READERS
from tree_readers import TREE_READERS

Make = Callable[[Path], None]
"""Writes a sample into an empty folder."""
Read = Callable[[Path], object]
"""Reads such a folder to the end; what cannot be read is a ValueError or OSError of one line."""


@dataclass(frozen=True)
class Reader:
    """A reader with a sample of what it reads."""

    make: Make
    read: Read
    damaged: str = "*"
    """Pattern of the files that are damaged."""


def only(folder: Path) -> Path:
    """The one entry of a folder, whatever it is called now."""
    (file,) = folder.iterdir()
    return file


def rows(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# --- images --------------------------------------------------------------------------------------


def photo(path: Path, height: int = 24, width: int = 32, **how: object) -> Path:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, **how)
    return path


def mask(path: Path, height: int = 24, width: int = 32) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.random.default_rng(1).integers(0, 2, (height, width)).astype(np.uint8)
    Image.fromarray(labels).save(path)


def picture(name: str, **how: object) -> Reader:
    from tenfold.data.images.decode import read_picture

    return Reader(
        lambda folder: photo(folder / name, **how) and None,
        lambda folder: read_picture(only(folder)),
    )


def coco_file(folder: Path) -> None:
    """Three objects: polygons, a compressed code, a crowd of plain runs."""
    from tenfold.metrics.ap import encode_mask

    photo(folder / "images" / "a.png")
    photo(folder / "images" / "b.png")
    part = np.zeros((24, 32), dtype=bool)
    part[4:9, 5:20] = True
    code = encode_mask(part)
    code["counts"] = code["counts"].decode()
    common = {"bbox": [5, 4, 15, 5], "area": 75, "iscrowd": 0}
    polygon = [[5, 4, 20, 4, 20, 9, 5.5, 9]]
    runs = {"size": [24, 32], "counts": [100, 20, 648]}
    content = {
        "info": {"year": 2020},
        "images": [
            {"id": i, "file_name": f"{name}.png", "height": 24, "width": 32}
            for i, name in enumerate("ab", 1)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": polygon, **common},
            {"id": 2, "image_id": 1, "category_id": 7, "segmentation": code, **common},
            {"id": 3, "image_id": 2, "category_id": 7, "segmentation": runs, **common,
             "iscrowd": 1},
        ],
    }  # fmt: skip
    (folder / "instances_train.json").write_text(json.dumps(content))


def read_coco(folder: Path) -> None:
    from tenfold.data.images.coco import open_coco

    found = open_coco(folder / "instances_train.json", folder / "images")
    for row in range(len(found)):
        found.scene(row)


def yolo(folder: Path) -> None:
    """Boxes and outlines of two classes, in the layout that training scripts take."""
    for split in ("train", "val"):
        for name in "ab":
            photo(folder / "images" / split / f"{name}.png")
            (folder / "labels" / split).mkdir(parents=True, exist_ok=True)
            rows = "0 0.5 0.5 0.2 0.3\n1 0.1 0.1 0.6 0.1 0.6 0.7 0.1 0.8\n"
            (folder / "labels" / split / f"{name}.txt").write_text(rows)
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")


def read_objects(folder: Path) -> None:
    from tenfold.data.images.own import open_objects

    found = open_objects(folder, "train", 0.2, 0)
    for row in range(len(found)):
        found.scene(row)


def label_maps(folder: Path) -> None:
    for split in ("train", "val"):
        photo(folder / "images" / split / "a.png")
        mask(folder / "labels" / split / "a.png")
    (folder / "classes.txt").write_text("sky\nroad\n")


def read_label_maps(folder: Path) -> None:
    from tenfold.data.images.own import open_maps

    found = open_maps(folder, "train", 0.2, 0)
    for row in range(len(found)):
        found.scene(row)


def class_map(folder: Path) -> None:
    """Label maps with all that a class map may say."""
    label_maps(folder)
    content = {
        "names": ["sky", "road"], "colours": [[1, 2, 3], [4, 5, 6]], "ids": [0, [1, 7]],
        "ignored": [9],
    }  # fmt: skip
    (folder / "classes.txt").unlink()
    (folder / "class_map.json").write_text(json.dumps(content))


def synthia(folder: Path) -> None:
    """A label map of three channels of 16 bits."""
    import struct
    import zlib

    photo(folder / "RGB" / "0.png", 4, 5)
    place = folder / "GT" / "LABELS"
    place.mkdir(parents=True)
    lines = np.random.default_rng(0).integers(0, 23, (4, 15)).astype(">u2")
    body = b"".join(b"\0" + line.tobytes() for line in lines)
    header = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, part in ((b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b"")):
        sum_ = struct.pack(">I", zlib.crc32(kind + part))
        content += struct.pack(">I", len(part)) + kind + part + sum_
    (place / "0.png").write_bytes(content)


def read_synthia(folder: Path) -> None:
    from tenfold.data.images.streets import open_streets

    open_streets(folder, "synthia", "train").scene(0)


def kept_statistics(folder: Path) -> None:
    """A set whose classes were counted."""
    photo(folder / "images" / "a.png")
    mask(folder / "labels" / "a.png")
    read_statistics(folder)


def class_statistics(folder: Path) -> None:
    """Official statistics beside the set that they are of."""
    kept_statistics(folder)
    (kept,) = (folder / "cache").rglob("*.json")
    pixels = json.loads(kept.read_text())["pixels"][0]
    content = [{**{str(i): n for i, n in enumerate(pixels) if n}, "file": "labels/a.png"}]
    (folder / "sample_class_stats.json").write_text(json.dumps(content))


def read_statistics(folder: Path) -> None:
    from tenfold.data.images.class_statistics import class_statistics
    from tenfold.data.images.streets import open_streets

    with mock.patch.dict("os.environ", {"TENFOLD_CACHE": str(folder / "cache")}):
        class_statistics(open_streets(folder, "streetsim", "train"), folder)


def class_folders(folder: Path) -> None:
    for name in ("cat", "dog"):
        for number in range(3):
            photo(folder / name / f"{number}.{('png', 'jpg', 'webp')[number]}")


def read_class_folders(folder: Path) -> None:
    from tenfold.data.images.classification import open_class_folders

    found = open_class_folders(folder, "train", 0.3, 0)
    for row in range(len(found)):
        found.picture(row)


def tagged(folder: Path) -> None:
    """A table, a list of classes, masks with numbers of their own."""
    for name in ("a", "b", "c"):
        photo(folder / "images" / f"{name}.png")
        mask(folder / "masks" / f"{name}.png")
    (folder / "classes.json").write_text('{"0": "background", "1": "cat", "2": "dog"}')
    (folder / "labels.csv").write_text("image,labels\na.png,cat;dog\nb.png,cat\nc.png,dog;cat\n")


def labelme(folder: Path) -> None:
    for name in ("a", "b", "c"):
        photo(folder / f"{name}.png")
        content = {
            "version": "5", "flags": {"cat": True, "dog": name == "a"}, "imagePath": f"{name}.png",
            "shapes": [{"label": "cow", "points": [[1, 2], [3, 4]], "flags": {}}],
        }  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps(content))


def read_tagged(folder: Path) -> None:
    from tenfold.data.images.multilabel import open_set, read_image, read_mask

    for split in ("train", "val"):
        for item in open_set("folder", folder, split).items:
            read_image(item)
            read_mask(item)


def voc_labels(folder: Path) -> None:
    for name in ("2007_000001", "2007_000002"):
        photo(folder / "JPEGImages" / f"{name}.jpg")
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_000001\n2007000002\n")
    rows = {
        name: np.eye(20, dtype=np.float32)[i] for i, name in enumerate((2007000001, 2007000002))
    }
    np.save(folder / "cls_labels.npy", np.array(rows, dtype=object))


def voc_notes(folder: Path) -> None:
    voc_labels(folder)
    (folder / "cls_labels.npy").unlink()
    (folder / "Annotations").mkdir()
    for name in ("2007_000001", "2007_000002"):
        text = "<annotation><object><name>cat</name></object></annotation>"
        (folder / "Annotations" / f"{name}.xml").write_text(text)


def read_voc_labels(folder: Path) -> None:
    from tenfold.data.images.multilabel import open_set

    open_set("voc2012", folder)


def coco_labels(folder: Path) -> None:
    coco_file(folder)
    (folder / "masks").mkdir()
    mask(folder / "masks" / "a.png")


def read_coco_labels(folder: Path) -> None:
    from tenfold.data.images.multilabel import open_set, read_mask

    for item in open_set("coco2014", folder).items:
        read_mask(item)


def cams(kind: str) -> Make:
    """Activation maps of a peer, or ours."""

    def make(folder: Path) -> None:
        import torch

        from tenfold.data.images import cam_files

        maps = {0: rows(0, 3, 4).astype(np.float32), 2: rows(1, 3, 4).astype(np.float32)}
        stacked = np.stack(list(maps.values()))
        irn = {"keys": torch.tensor([0, 2]), "cam": torch.from_numpy(stacked)}
        if kind == "ours":
            cam_files.write(folder / "a.npz", maps, {"scales": [1, 2]})
        else:
            content: object = maps if kind == "psa" else irn
            np.save(folder / "a.npy", np.array(content, dtype=object))

    return make


def read_cams(folder: Path) -> None:
    from tenfold.data.images import cam_files

    cam_files.read(only(folder), 3)
    cam_files.read_setting(only(folder))


def cifar(folder: Path) -> None:
    content = {
        "data": np.zeros((3, 3072), np.uint8), "fine_labels": [1, 2, 3], "filenames": [*"abc"],
    }  # fmt: skip
    for split in ("train", "test"):
        (folder / split).write_bytes(pickle.dumps(content, protocol=2))


def read_cifar(folder: Path) -> None:
    from tenfold.data.images import cifar as reader

    reader.read(folder, "train")


def stored(folder: Path) -> None:
    from PIL import Image

    parts = []
    for i in range(3):
        content = io.BytesIO()
        Image.new("RGB", (64, 64), (i, 9, 99)).save(content, "JPEG")
        parts.append(np.frombuffer(content.getvalue(), np.uint8))
    ends = np.cumsum([0, *map(len, parts)])
    np.savez(
        folder / "train.npz", jpeg=np.concatenate(parts), offset=ends.astype(np.int64),
        label=np.arange(3), name=np.array(["a", "b", "c"]),
    )  # fmt: skip


def read_stored(folder: Path) -> None:
    from tenfold.data.images.stored import open_stored

    open_stored(only(folder), 64, 20).read(range(3))


# --- motion --------------------------------------------------------------------------------------

BVH = """HIERARCHY
ROOT hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT knee
  {
    OFFSET 0 -40 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT foot
    {
      OFFSET 0 -40 3
      CHANNELS 3 Zrotation Xrotation Yrotation
      End Site
      {
        OFFSET 0 0 10
      }
    }
  }
}
MOTION
Frames: 60
Frame Time: 0.04
"""


def bvh(folder: Path) -> None:
    frames = "\n".join(" ".join(f"{v:.3f}" for v in 10 * row) for row in rows(0, 60, 12))
    (folder / "walk_1.bvh").write_text(BVH + frames + "\n")


def read_bvh_set(folder: Path) -> None:
    from tenfold.data.motion import bvh_folder as reader

    skeleton = reader.read_skeleton(only(folder))
    reader.read(only(folder), "train", skeleton, 20)


def motion_npz(folder: Path) -> None:
    np.savez_compressed(folder / "walk.npz", positions=rows(0, 60, 38, 3).astype(np.float32))


def motion_text(folder: Path) -> None:
    np.savetxt(folder / "walk.txt", rows(0, 60, 117), fmt="%.4f", delimiter=",")


def read_motion(folder: Path) -> None:
    import tiny

    from tenfold.systems.spgsn.takes import read_take

    read_take(only(folder), tiny.config("spgsn", "demo", []))


def cmu(folder: Path) -> None:
    table = rows(0, 80, 117).astype(np.float32)
    np.savez_compressed(folder / "benchmark.npz", **{"train/walking/walking_1": table})


def read_cmu(folder: Path) -> None:
    from tenfold.data.motion import cmu_mocap

    cmu_mocap.read(only(folder), "train", length=10)


def threedpw(folder: Path) -> None:
    (folder / "train").mkdir()
    content = {"jointPositions": [rows(0, 30, 72)], "sequence": "a"}
    (folder / "train" / "a.pkl").write_bytes(pickle.dumps(content, protocol=2))


def read_threedpw(folder: Path) -> None:
    from tenfold.data.motion import threedpw as reader

    reader.read(folder, "train", 10)


def h36m(folder: Path) -> None:
    (folder / "S1").mkdir()
    np.savetxt(folder / "S1" / "walking_1.txt", rows(0, 40, 99), fmt="%.4f", delimiter=",")


def read_h36m(folder: Path) -> None:
    from tenfold.data.motion import h36m as reader

    reader.read(folder, "train", length=10)


# --- weather -------------------------------------------------------------------------------------


def netcdf(name: str, engine: str, **how: object) -> Reader:
    def make(folder: Path) -> None:
        import weather_files

        weather_files.dataset().to_netcdf(folder / name, engine=engine, **how)

    return Reader(make, read_states)


def zarr(folder: Path) -> None:
    import weather_files

    weather_files.dataset().to_zarr(folder / "states.zarr", zarr_format=2, consolidated=True)


def zarr3(folder: Path) -> None:
    import weather_files

    weather_files.dataset().to_zarr(folder / "states.zarr", zarr_format=3, consolidated=False)


def pair(folder: Path) -> None:
    import weather_files

    lat, lon = np.linspace(90, -90, 9), np.arange(16) * 22.5
    made = weather_files.atmosphere(1, tuple(weather_files.HEIGHTS), lat, lon)
    (folder / "pair").mkdir()
    upper, surface = weather_files.UPPER, weather_files.SURFACE
    np.save(folder / "pair" / "input_upper.npy", np.stack([made[name][0] for name in upper]))
    np.save(folder / "pair" / "input_surface.npy", np.stack([made[name][0] for name in surface]))


def grib(folder: Path) -> None:
    (folder / "states.grib").write_bytes(b"GRIB\0\0\x10\2" + bytes(200) + b"7777")


def read_states(folder: Path) -> None:
    from tenfold.data.weather.reader import open_states

    states = open_states(only(folder))
    for index in range(min(len(states), 8)):
        states.read(index)


def track(folder: Path) -> None:
    lines = [f"{6 * i},{20 + i},{130 - i},a" for i in range(8)]
    (folder / "best.csv").write_text("hour,lat,lon,storm\n" + "\n".join(lines) + "\n")


def read_best_track(folder: Path) -> None:
    from tenfold.systems.pangu.tracks import read_track

    read_track(only(folder))


# --- text ----------------------------------------------------------------------------------------

TEXT = "Ein kurzer Satz, der sich wiederholt: größer, kleiner, \u4e2d\u6587.\n" * 400


def text(ending: str, pack: Callable[[bytes], bytes]) -> Reader:
    from tenfold.data.text import corpus

    return Reader(
        lambda folder: (folder / f"book.txt{ending}").write_bytes(pack(TEXT.encode())) and None,
        lambda folder: corpus.load("files", str(only(folder))),
    )


def textmix(folder: Path) -> None:
    import hashlib

    manifest = {}
    for key in ("code.train", "code.val"):
        manifest[key] = {
            "bytes": len(TEXT.encode()), "sha256": hashlib.sha256(TEXT.encode()).hexdigest(),
        }  # fmt: skip
        (folder / f"{key}.txt.xz").write_bytes(lzma.compress(TEXT.encode()))
    (folder / "manifest.json").write_text(json.dumps(manifest))


def read_textmix(folder: Path) -> None:
    from tenfold.data.text import corpus

    corpus.load("textmix", str(folder))


def prompt(folder: Path) -> None:
    (folder / "prompt.txt").write_text(TEXT[:300])


def read_prompt(folder: Path) -> None:
    from tenfold.systems.ppmoe.predict import read_prompt as reader

    reader(only(folder))


# --- weights -------------------------------------------------------------------------------------


def tensors() -> dict[str, object]:
    import torch

    return {f"blocks.{i}.weight": torch.arange(12.0).reshape(3, 4) for i in range(3)}


def torch_file(folder: Path) -> None:
    import torch

    torch.save({"model": tensors(), "epoch": 3}, folder / "model.pth")


def old_torch_file(folder: Path) -> None:
    import torch

    torch.save(tensors(), folder / "model.pt", _use_new_zipfile_serialization=False)


def segmenter(folder: Path) -> None:
    """A student as DAFormer saves it while it trains, of one encoder's blocks and channels."""
    import torch

    from tenfold.nn.mit import MixTransformer

    state = MixTransformer((1, 2, 5, 8), (1, 2, 5, 8), (1, 1, 1, 1)).state_dict()
    student = {f"model.backbone.{key}": value for key, value in state.items()}
    notes = {"best_score": np.float64(0.5), "CLASSES": ["road"]}
    torch.save({"meta": notes, "state_dict": student}, folder / "latest.pth")


def read_segmenter(folder: Path) -> None:
    from tenfold.systems.dts.official import describe, read_official

    describe(read_official(only(folder)))


def script(folder: Path) -> None:
    import torch

    torch.jit.trace(torch.nn.Linear(3, 2), torch.ones(1, 3)).save(str(folder / "clip.pt"))


def safetensors(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors(), folder / "model.safetensors", {"format": "pt"})


def read_weights(folder: Path) -> None:
    from tenfold.weights.containers import read_checkpoint

    read_checkpoint(only(folder))


def onnx(folder: Path) -> None:
    from systems.pangu import onnx_cases

    from tenfold.systems.pangu.onnx.writer import write_onnx

    made = onnx_cases.case()
    write_onnx(folder / "pangu_weather_24.onnx", made.network, made.statistics)


def read_official(folder: Path) -> None:
    from tenfold.systems.pangu.onnx.reader import read_onnx

    read_onnx(only(folder))


def texts(folder: Path) -> None:
    vectors = rows(3, 6, 8).astype(np.float16)
    names = np.array(["road", "sky", "car", "wheel", "hat", "coat"])
    np.savez_compressed(
        folder / "texts.npz", names=names, vectors=vectors, space="drawn", prompt="raw"
    )


def read_texts(folder: Path) -> None:
    from tenfold.systems.virreq.text import StoredTexts

    StoredTexts.read(only(folder))


def merges(folder: Path) -> None:
    from tenfold.data.text.clip_tokens import MERGES

    lines = ["#", *["a b"] * MERGES]
    (folder / "bpe.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def read_merges(folder: Path) -> None:
    from tenfold.data.text.clip_tokens import ClipTokenizer

    ClipTokenizer.read(only(folder)).table(["a road"])


def requests(folder: Path) -> None:
    asked = [{"unit": "scene"}, {"unit": 1, "kind": "instance", "probe": [3, 4]}]
    (folder / "requests.json").write_text(json.dumps([*asked, {"unit": 1, "names": ["wheel"]}]))


def read_requests(folder: Path) -> None:
    from tenfold.systems.virreq.requests import read

    read(only(folder))


def divider(folder: Path) -> None:
    import torch
    from systems.virreq.networks import network

    from tenfold.systems.virreq.official import theirs

    torch.save({"state_dict": theirs(network().state_dict())}, folder / "iter.pth")


def read_divider(folder: Path) -> None:
    from systems.virreq.networks import network

    from tenfold.systems.virreq.official import convert, read_official

    shapes = {k: tuple(v.shape) for k, v in network().state_dict().items()}
    convert(read_official(only(folder)), shapes)


# --- runs ----------------------------------------------------------------------------------------


def words(folder: Path) -> list[str]:
    """The command that made the run."""
    import tiny

    options = [*tiny.options("spgsn"), "--steps", "2", "--run.folder", str(folder / "run")]
    return ["train", "spgsn", "demo", *options]


def finished(folder: Path) -> None:
    """A finished run of the smallest system."""
    command(words(folder))


def unfinished(folder: Path) -> None:
    """A run that was killed after training, before its weights were written."""
    finished(folder)
    for name in ("result.json", "weights.safetensors", "report.html", "MODEL_CARD.md"):
        (folder / "run" / name).unlink()


def command(words: list[str]) -> None:
    """Run the command line; what it says on stderr, if it refuses, is the error."""
    from tenfold.cli import main

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main(words)
        except SystemExit as end:
            text = said.getvalue().strip()
            if end.code == 70:
                raise AssertionError(text) from None
            if end.code:
                raise ValueError(text.splitlines()[-1] if text else "") from None


def go_on(folder: Path) -> None:
    """The command that made the run, without the evaluation at its end."""
    with mock.patch("tenfold.runner.train.conclude", lambda *_: {}):
        command(words(folder))


def load_run(folder: Path) -> None:
    import tenfold

    tenfold.load(folder / "run")


def instances_in(form: str) -> Reader:
    """Objects in the form of a tool: a box, a mask with a hole, points, a model's find."""

    def make(folder: Path) -> None:
        from dataclasses import replace

        from tenfold.data.images.crops import crop_of
        from tenfold.data.images.exchange import write
        from tenfold.data.images.instance_sets import open_photos
        from tenfold.data.images.instances import Point, Said, Shape

        photo(folder / "photos" / "a.png")
        mask = np.ones((5, 6), dtype=bool)
        mask[2, 2:4] = False
        said = Said("model", "", "m1", "2026-01-01T00:00:00Z")
        points = (Point(3, 4, 1, Said(who="anna"), 1.5, "entropy"), Point(9, 9, 0))
        shape = Shape(7, 0, (2.0, 3.5, 11.0, 10.0), crop_of(mask, 3, 4), points, mask_said=said)
        found = open_photos(folder / "photos", classes=("cat", "dog"))
        picture = replace(found.pictures[0], shapes=(shape, replace(shape, id=8, said=said)))
        write(replace(found, pictures=(picture,)), folder / "out", form)

    def read(folder: Path) -> None:
        from tenfold.data.images import exchange
        from tenfold.data.images.instance_sets import open_photos

        known = open_photos(folder / "photos", classes=("cat", "dog"))
        exchange.read(folder / "out", form, known)
        exchange.read(folder / "out", form, known, skip=True)

    return Reader(make, read, "out/*")


def nuclei(folder: Path) -> None:
    from PIL import Image

    photo(folder / "images" / "a.webp")
    (folder / "masks").mkdir()
    numbers = np.zeros((24, 32), dtype=np.uint16)
    numbers[2:5, 3:9], numbers[8, :] = 1, 2
    Image.fromarray(numbers).save(folder / "masks" / "a.png")
    (folder / "index.json").write_text(json.dumps([{"name": "a", "split": "train"}]))


def read_nuclei(folder: Path) -> None:
    from tenfold.data.images.instance_sets import open_instances

    open_instances("nuclei_dsb2018", folder, "train")


def answers(folder: Path) -> None:
    from tenfold.systems.apis.answers import Answer, Undo

    said = [Answer(f"0/{i}", i, 3, 4, (1, 0, None, "skip")[i], "entropy", 1.5) for i in range(4)]
    lines = [json.dumps(one.event()) for one in (*said, Undo("u", "0/1"))]
    (folder / "answers.jsonl").write_text("".join(f"{line}\n" for line in lines))


def read_answers(folder: Path) -> None:
    from tenfold.journal import events
    from tenfold.systems.apis.answers import standing

    standing(events(only(folder)))


def readers() -> dict[str, Reader]:
    """All readers by name."""
    weights, text_kinds = "run/*.safetensors", "run/*.json*"
    return {
        "picture jpg": picture("a.jpg", quality=80),
        "picture png": picture("a.png"),
        "picture webp": picture("a.webp"),
        "picture gif": picture("a.gif"),
        "picture tiff": picture("a.tif", compression="tiff_lzw"),
        "picture bmp": picture("a.bmp"),
        "class folders": Reader(class_folders, read_class_folders),
        "table of labels": Reader(tagged, read_tagged, "*.[cj]s*"),
        "LabelMe": Reader(labelme, read_tagged, "*.json"),
        "cls_labels": Reader(voc_labels, read_voc_labels, "*.npy"),
        "VOC lists": Reader(voc_notes, read_voc_labels, "*/*/*.txt"),
        "VOC notes": Reader(voc_notes, read_voc_labels, "Annotations/*"),
        "COCO labels": Reader(coco_labels, read_coco_labels, "*.json"),
        "maps of PSA": Reader(cams("psa"), read_cams),
        "maps of IRN": Reader(cams("irn"), read_cams),
        "maps of ours": Reader(cams("ours"), read_cams),
        "COCO": Reader(coco_file, read_coco, "*.json"),
        "YOLO": Reader(yolo, read_objects),
        "instances, COCO": instances_in("coco"),
        "instances, points": instances_in("coco_points"),
        "instances, CVAT": instances_in("cvat"),
        "instances, Label Studio": instances_in("label_studio"),
        "instances, X-AnyLabeling": instances_in("x_anylabeling"),
        "instances, LabelMe": instances_in("labelme"),
        "instances, nuclei": Reader(nuclei, read_nuclei, "*/a.png"),
        "answers": Reader(answers, read_answers),
        **{name: Reader(make, read) for name, (make, read) in TREE_READERS.items()},
        **{name: Reader(*three) for name, three in CAPTION_READERS.items()},
        "COCO, found": Reader(coco_file, read_objects, "*.json"),
        "label maps": Reader(label_maps, read_label_maps),
        "class map": Reader(class_map, read_label_maps, "class_map.json"),
        "SYNTHIA": Reader(synthia, read_synthia, "GT/LABELS/*"),
        "class statistics": Reader(class_statistics, read_statistics, "*.json"),
        "class statistics kept": Reader(kept_statistics, read_statistics, "cache/*/*"),
        "CIFAR": Reader(cifar, read_cifar, "train"),
        "npz of pictures": Reader(stored, read_stored),
        "CMU npz": Reader(cmu, read_cmu),
        "BVH": Reader(bvh, read_bvh_set),
        "motion npz": Reader(motion_npz, read_motion),
        "motion text": Reader(motion_text, read_motion),
        "3DPW": Reader(threedpw, read_threedpw),
        "Human3.6M": Reader(h36m, read_h36m),
        "NetCDF 3": netcdf("states.nc", "scipy"),
        "NetCDF 4": netcdf("states.nc", "h5netcdf"),
        "zarr 2": Reader(zarr, read_states),
        "zarr 3": Reader(zarr3, read_states),
        "npy pair": Reader(pair, read_states),
        "GRIB": Reader(grib, read_states),
        "best track": Reader(track, read_best_track),
        "text": text("", bytes),
        "text gz": text(".gz", gzip.compress),
        "text xz": text(".xz", lzma.compress),
        "textmix": Reader(textmix, read_textmix),
        "prompt": Reader(prompt, read_prompt),
        "torch": Reader(torch_file, read_weights),
        "torch, old": Reader(old_torch_file, read_weights),
        "DAFormer": Reader(segmenter, read_segmenter),
        "ViRReq": Reader(divider, read_divider),
        "texts of concepts": Reader(texts, read_texts),
        "CLIP's merges": Reader(merges, read_merges),
        "requests": Reader(requests, read_requests),
        "TorchScript": Reader(script, read_weights),
        "safetensors": Reader(safetensors, read_weights),
        "ONNX": Reader(onnx, read_official),
        "run, loaded": Reader(finished, load_run, weights),
        "run, reported": Reader(
            finished, lambda folder: command(["report", str(folder / "run")]), text_kinds
        ),
        "run, finished": Reader(finished, go_on, text_kinds),
        "run, going on": Reader(unfinished, go_on, "run/checkpoints/train/*"),
    }
