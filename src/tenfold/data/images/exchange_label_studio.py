"""Objects as Label Studio's tasks: rectangles, brush masks and key points.

A human's shapes are an annotation of the task, a model's are predictions, one for each version of
it. Sizes are in percent of the picture. Brush masks have Label Studio's own run-length code
(label_studio_converter/brush.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote
from xml.sax.saxutils import quoteattr

import numpy as np
from jaxtyping import Bool

from tenfold.files import NUMBER, misfit, parse_json, write_json, write_text

from .crops import crop_of
from .decode import MAX_PIXELS
from .exchange_parts import (
    MOST_BYTES,
    MOST_SHAPES,
    OWN,
    Exported,
    Part,
    by_name,
    checked_record,
    joined,
    record_of,
    said_of,
)  # fmt: skip
from .instances import Objects, ObjectSet, Point, Said, Shape

FILE, CONFIG = "label_studio.json", "label_studio_config.xml"
PREFIX = "/data/local-files/?d="
"""Address of a picture below Label Studio's folder of local files."""
LABELS = {1: "on", 0: "off", -1: "not sure"}
WORD, SIZES = 8, (3, 4, 8, 16)
"""Bits of a value, and of the four kinds of runs, that Label Studio writes."""
ID = re.compile(r"(\d+)-(?:box|mask|p\d+)")
TASKS = [
    {
        "data": {"*": object},
        "annotations": (list, type(None)),
        "predictions": (list, type(None)),
    }
]
RESULT = {
    "id": str, "type": (str, type(None)), "value": dict,
    "original_width": int, "original_height": int,
    "parentID": (str, type(None)), "meta": (dict, type(None)),
}  # fmt: skip
KINDS = ("rectanglelabels", "brushlabels", "polygonlabels", "keypointlabels")
"""Types of regions that are read."""


def kind_of(region: Mapping[str, Any]) -> str:
    """Type of a region; of one that states none, the kind of labels in its value; else empty."""
    stated = region.get("type") or ""
    return stated or next((kind for kind in KINDS if kind in region.get("value", {})), "")


def write_label_studio(objects: ObjectSet, out: Path, prefix: str = PREFIX) -> Exported:
    """Write the tasks, and the labelling interface that shows them.

    prefix: what stands before a picture's path in its address.
    """
    tasks = []
    for picture in objects.pictures:
        results: dict[str, list[dict[str, Any]]] = {}
        for shape in picture.shapes:
            for said, result in _results(shape, picture, objects.classes):
                version = (said.model or "model") if said.source == "model" else ""
                results.setdefault(version, []).append(result)
        task: dict[str, Any] = {"data": {"image": prefix + quote(picture.name)}}
        task["annotations"] = [{"result": results.pop("")}] if "" in results else []
        task["predictions"] = [
            {"model_version": version, "result": result} for version, result in results.items()
        ]
        tasks.append(task)
    files = (out / FILE, out / CONFIG)
    write_json(files[0], tasks)
    write_text(files[1], interface(objects.classes))
    notes = ["pictures are addressed as local files of Label Studio: serve their folder, or import "
             "them first and correct data.image"]  # fmt: skip
    people = {shape.said.who for p in objects.pictures for shape in p.shapes} - {""}
    if people:
        notes.append(
            "names of annotators are in each region's meta: Label Studio takes its own users only "
            "as authors"
        )
    return Exported(files, tuple(notes))


def interface(classes: Sequence[str]) -> str:
    """The labelling interface (XML) for boxes and masks of these classes, and points."""
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in classes)
    points = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in LABELS.values())
    return (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'  <RectangleLabels name="box" toName="image">\n{labels}  </RectangleLabels>\n'
        f'  <BrushLabels name="mask" toName="image">\n{labels}  </BrushLabels>\n'
        f'  <KeyPointLabels name="point" toName="image">\n{points}  </KeyPointLabels>\n</View>\n'
    )


def _results(
    shape: Shape, picture: Objects, classes: Sequence[str]
) -> list[tuple[Said, dict[str, Any]]]:
    """Who said it, and the region, of each part of an object."""
    high, wide = picture.height / 100, picture.width / 100
    label = [classes[shape.label]]
    x0, y0, x1, y1 = shape.box
    box = {"x": x0 / wide, "y": y0 / high, "width": (x1 - x0) / wide, "height": (y1 - y0) / high,
           "rotation": 0, "rectanglelabels": label}  # fmt: skip
    parts: list[tuple[Said, str, str, dict[str, Any], Point | None]] = [
        (shape.said, "box", "rectanglelabels", box, None)
    ]
    if shape.mask is not None and shape.mask.area:
        code = encode_brush(shape.mask.whole(picture.height, picture.width))
        brush = {"format": "rle", "rle": code, "brushlabels": label}
        parts.append((shape.mask_said, "mask", "brushlabels", brush, None))
    for number, point in enumerate(shape.points):
        key = {"x": (point.x + 0.5) / wide, "y": (point.y + 0.5) / high, "width": 0.5,
               "keypointlabels": [LABELS[point.label]]}  # fmt: skip
        parts.append((point.said, f"p{number}", "keypointlabels", key, point))
    found = []
    for said, end, kind, value, one in parts:
        result: dict[str, Any] = {
            "id": f"{shape.id}-{end}",
            "type": kind,
            "from_name": {"rectanglelabels": "box", "brushlabels": "mask"}.get(kind, "point"),
            "to_name": "image",
            "original_width": picture.width,
            "original_height": picture.height,
            "image_rotation": 0,
            "origin": "prediction" if said.source == "model" else "manual",
            "value": value,
            "meta": {OWN: record_of(shape, said, one)},
        }
        if shape.score is not None and said.source == "model":
            result["score"] = shape.score
        if end != "box" and said.source == shape.said.source:
            result["parentID"] = f"{shape.id}-box"
        found.append((said, result))
    return found


# --- brush masks ---------------------------------------------------------------------------------


def encode_brush(mask: Bool[np.ndarray, "height width"]) -> list[int]:
    """Bytes of Label Studio's code of a mask: its four channels are equal, 255 on the object."""
    flat = mask.ravel()
    ends = np.flatnonzero(np.diff(flat, append=~flat[-1:])) + 1
    bits = [f"{4 * flat.size:032b}{WORD - 1:05b}", *(f"{size - 1:04b}" for size in SIZES)]
    for end, length in zip(ends.tolist(), (4 * np.diff(ends, prepend=0)).tolist(), strict=True):
        value = f"{255 * int(flat[end - 1]):08b}"
        while length:
            kind = next((k for k, size in enumerate(SIZES) if length <= 2**size), len(SIZES) - 1)
            part = min(length, 2 ** SIZES[kind])
            bits.append(f"1{kind:02b}{part - 1:0{SIZES[kind]}b}{value}")
            length -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]


def decode_brush(code: Any, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """The mask of such a code: pixels whose last channel is above zero.

    Raises:
        ValueError: It is of another size than the picture, or ends too early.
    """
    count = 4 * height * width
    if not 0 < height * width <= MAX_PIXELS:
        raise ValueError(f"its picture has {width} x {height} pixels, more than {MAX_PIXELS}")
    stream = np.unpackbits(_bytes(code))
    place = 0

    def number(bits: int) -> int:
        nonlocal place
        if place + bits > len(stream):
            raise ValueError("its run-length code ends too early")
        found = int("".join(map(str, stream[place : place + bits].tolist())), 2)
        place += bits
        return found

    stated = number(32)
    if stated != count:
        raise ValueError(
            f"its run-length code is of {stated} values, the picture of {width} x {height} pixels "
            f"has {count}"
        )
    word = number(5) + 1
    sizes = [number(4) + 1 for _ in range(4)]
    values: list[Any] = []
    done = 0
    while done < count:
        is_run = number(1)
        length = number(sizes[number(2)]) + 1
        if done + length > count:
            raise ValueError("its run-length code holds more values than it says")
        if is_run:
            values.append(np.full(length, number(word) > 0))
        elif place + length * word > len(stream):
            raise ValueError("its run-length code ends too early")
        else:
            words = stream[place : place + length * word].reshape(length, word)
            values.append(words.any(1))
            place += length * word
        done += length
    return np.concatenate(values).reshape(height, width, 4)[..., 3]


def _bytes(code: Any) -> np.ndarray:
    problem = misfit(code, [int], "rle")
    if problem or not all(0 <= value < 256 for value in code):
        raise ValueError(problem or "its run-length code is no list of bytes")
    return np.array(code, dtype=np.uint8)


# --- reading -------------------------------------------------------------------------------------


def read_label_studio(file: Path, known: ObjectSet, skip: bool = False) -> ObjectSet:
    """Read rectangles, brushes, polygons and key points of exported tasks (JSON).

    Of several annotations of a task the last that was not cancelled is read, and of predictions
    that are not ours the last. A region that a human took over from a prediction is the human's.
    """
    file = file / FILE if file.is_dir() else file
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{file} has {size} bytes, more than {MOST_BYTES}. Export fewer tasks.")
    try:
        tasks = parse_json(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error
    if problem := misfit(tasks, TASKS, "task"):
        raise ValueError(f"{file}: {problem}. Export the project as JSON, not JSON-MIN.")
    parts: list[Part] = []
    notes: list[str] = []
    names = by_name(known.pictures)
    for task in tasks:
        name = _name(task, names)
        rows = [known.pictures[names[name]]] if name in names else []
        taken: set[str] = set()
        for source, model, results in _sources(task, file, notes):
            keys = _keys(results)
            fresh = [one for one in results if one.get("id", "") not in taken]
            taken |= {one.get("id", "") for one in results} - {""}
            for result in fresh:
                where = f"picture {name[:80]!r}, region {str(result.get('id'))[:40]!r}"
                try:
                    found = _part(result, name, where, (source, model), rows)
                    if found is None:
                        notes.append(f"left out: {where} is of type {result.get('type')!r}")
                        continue
                    found.key = keys.get(result.get("id", ""), "")
                    parts.append(found)
                except (ValueError, TypeError) as error:
                    if not skip:
                        raise ValueError(f"{file}: {where}: {error}") from error
                    notes.append(f"left out: {where}: {error}")
                if len(parts) > MOST_SHAPES:
                    raise ValueError(f"{file} has more than {MOST_SHAPES} regions. Split it.")
    return joined(parts, known, file, skip, notes)


def _name(task: dict[str, Any], names: dict[str, int]) -> str:
    """Name of a task's picture: what follows `?d=` of its address, or the end of that."""
    texts = [value for value in task.get("data", {}).values() if isinstance(value, str)]
    tried = []
    for text in texts:
        path = unquote(text.partition("?d=")[2] or text)
        tried += [path, path.rpartition("/")[2], path.rpartition("/")[2].partition("-")[2]]
    # an upload has eight digits and a dash before its name
    return next((name for name in tried if name in names), (tried or ["(no picture)"])[0])


def _sources(
    task: dict[str, Any], file: Path, notes: list[str]
) -> list[tuple[str, str, list[dict[str, Any]]]]:
    found = []
    annotations = [a for a in task.get("annotations") or [] if isinstance(a, dict)]
    kept = [a for a in annotations if not a.get("was_cancelled")]
    if len(kept) > 1:
        notes.append(f"of {len(kept)} annotations of task {task.get('id')} only the last is read")
    for one in kept[-1:]:
        found.append(("human", "", one.get("result") or []))
    predictions = [p for p in task.get("predictions") or [] if isinstance(p, dict)]
    ours = [p for p in predictions if '"' + OWN + '"' in json.dumps(p)]
    if len(predictions) > 1 and not ours:
        notes.append(f"of {len(predictions)} predictions of task {task.get('id')} one is read")
    for one in ours or predictions[-1:]:
        found.append(("model", str(one.get("model_version") or ""), one.get("result") or []))
    for _, _, results in found:
        if problem := misfit(results, [RESULT], "result"):
            raise ValueError(f"{file}: task {task.get('id')}: {problem}. Export it again.")
    return found


def _keys(results: list[dict[str, Any]]) -> dict[str, str]:
    """Which object each region is of: the number that we gave, or its parent's id."""
    found = {}
    for result in results:
        name = result.get("id", "")
        ours = ID.fullmatch(name)
        found[name] = ours[1] if ours else result.get("parentID") or name
    return found


def _part(
    result: dict[str, Any], name: str, where: str, by: tuple[str, str], rows: list[Objects]
) -> Part | None:
    kind, value = kind_of(result), result.get("value", {})
    record = checked_record((result.get("meta") or {}).get(OWN), where)
    said = said_of({"model": by[1]} | record, by[0])
    part = Part(name, "", where, said=said, record=record)
    labels = value.get(kind)
    if kind not in KINDS:
        return None
    if kind != "keypointlabels":
        if misfit(labels, [str], "labels") or not labels:
            raise ValueError(f"it needs one label in value.{kind}")
        part.label = labels[0]
    if not rows:  # of a picture that is not there, which is said of all of them together
        part.box = (0.0, 0.0, 0.0, 0.0)
        return part
    high, wide = rows[0].height / 100, rows[0].width / 100
    size = (rows[0].width, rows[0].height)
    stated = (result.get("original_width", size[0]), result.get("original_height", size[1]))
    if stated != size:
        raise ValueError(
            f"it is of a picture of {stated[0]} x {stated[1]} pixels, {rows[0].name} has "
            f"{size[0]} x {size[1]}"
        )
    if kind == "brushlabels":
        mask = decode_brush(value.get("rle"), rows[0].height, rows[0].width)
        part.mask = crop_of(mask)
        return part
    if kind == "polygonlabels":
        if misfit(value.get("points"), [[NUMBER]], "points") or len(value["points"]) < 3:
            raise ValueError("it needs three points x, y or more")
        part.polygons = [[v for x, y in value["points"] for v in (x * wide, y * high)]]
        return part
    keys = ("x", "y", "width", "height") if kind == "rectanglelabels" else ("x", "y")
    if misfit({k: value.get(k) for k in keys}, {"*": NUMBER}, "value"):
        raise ValueError(f"it needs numbers {', '.join(keys)}")
    x, y = value["x"] * wide, value["y"] * high
    if kind == "keypointlabels":
        names = {text: number for number, text in LABELS.items()}
        on = names.get((labels or ["on"])[0], 1)
        chosen = record.get("chosen", "human")
        part.point = Point(int(x), int(y), on, said, float(record.get("seconds", 0.0)), chosen)  # type: ignore[arg-type]
        return part
    if value.get("rotation"):
        raise ValueError("it is a turned rectangle; only upright ones are read")
    corners = (x, y, x + value["width"] * wide, y + value["height"] * high)
    part.box = tuple(round(float(v), 6) for v in corners)  # type: ignore[assignment]
    return part
