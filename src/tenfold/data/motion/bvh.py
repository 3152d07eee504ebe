"""BVH motion files: their text read and written.

Our own parser, because the one maintained package (pybvh 0.9, a single author, interface still
being renamed) is about 700 kB of code for a grammar of seven words, and our errors name file and
line and hold hostile files to stated limits.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from tenfold.files import write_bytes
from tenfold.printable import printable

from .bvh_motion import MAX_VALUES, POSITIONS, Bvh
from .clips import check_table

MAX_BYTES = 2**29
MAX_JOINTS = 500
MAX_CLAUSES = 50 * MAX_JOINTS
"""Lines of the hierarchy, braces counted apart."""
MAX_VALUE = 1e9
"""Of an offset, a place or an angle: a body in micrometres, a kilometre away."""
MAX_FRAME_TIME, MIN_FRAME_TIME = 1.0, 1e-4
"""Seconds; who writes more means milliseconds, or nothing."""
RATES = (12, 15, 24, 25, 30, 48, 50, 60, 72, 75, 90, 100, 120, 125, 144, 150, 180, 200, 240)
"""Frame rates that a rounded `Frame Time` means: 0.0333 is 30 a second."""
CHANNELS = (*POSITIONS, "Xrotation", "Yrotation", "Zrotation")

Line = tuple[int, bytes]
"""Its number, from 1, and its content."""


def read_bvh(path: Path) -> Bvh:
    """Read a BVH file; any rotation order and any channels a joint; errors name file and line.

    The grammar is that of Blender's importer: keywords in any letter case, a byte order mark, rows
    that are not as many as the header says (with a warning).
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes, more than the {MAX_BYTES} that a BVH file "
            "may have. Cut it into shorter takes."
        )
    content = path.read_bytes()
    if not content.strip():
        raise ValueError(f"{path} is empty. Export it again.")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(
            f"{path} is UTF-16 or UTF-32 text, which other tools cannot read; save it as UTF-8."
        )
    # bytes, whose white space is ASCII's alone: names may be in any encoding
    lines = content.removeprefix(b"\xef\xbb\xbf").splitlines()
    tree, used = _read_tree(path, lines)
    return _read_motion(path, tree, lines, used)


def _clauses(lines: Sequence[bytes]) -> Iterator[Line]:
    """The lines of the hierarchy, braces on lines of their own."""
    for number, line in enumerate(lines, 1):
        rest = line.strip()
        while len(rest) > 1 and rest[:1] in (b"{", b"}"):
            yield number, rest[:1]
            rest = rest[1:].strip()
        # a brace may stick to a word, but in Shift JIS it is also the end of a letter
        if len(rest) > 1 and rest[-1:] in (b"{", b"}") and rest[-2:-1] < b"\x80":
            yield number, rest[:-1].strip()
            yield number, rest[-1:]
        elif rest:
            yield number, rest


def _read_tree(path: Path, lines: list[bytes]) -> tuple[Bvh, int]:
    """The skeleton of a file, without motion, and how many lines it took."""
    names: list[bytes] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[tuple[str, ...]] = []
    inside: list[int] = []
    for count, (number, line) in enumerate(_clauses(lines)):
        if count == MAX_CLAUSES:
            raise _bad(path, number, f"a hierarchy of more than {MAX_CLAUSES} lines")
        word, *rest = line.split()
        match word.upper():
            case b"HIERARCHY" | b"{" if not rest:
                pass
            case b"ROOT" | b"JOINT" | b"END":
                kind = word.upper().decode()
                if (kind == "ROOT") != (not names) or (names and not inside):
                    raise _bad(path, number, f"{kind} outside the tree; one ROOT holds all joints")
                parent = inside[-1] if inside else -1
                name = line.split(None, 1)[1] if rest else b""
                if not name:
                    raise _bad(path, number, f"{kind} without a name")
                names.append(names[parent] + b" end" if kind == "END" else name)
                parents.append(parent)
                offsets.append([0.0, 0.0, 0.0])
                channels.append(())
                inside.append(len(names) - 1)
                if len(names) > MAX_JOINTS:
                    raise _bad(path, number, f"more than {MAX_JOINTS} joints")
            case b"OFFSET" if inside:
                if len(rest) != 3:
                    raise _bad(path, number, f"OFFSET has {len(rest)} values, expected 3")
                offsets[inside[-1]] = _numbers(path, number, rest, MAX_VALUE)
            case b"CHANNELS" if inside and rest:
                own = [text(name).capitalize() for name in rest[1:]]
                unknown = set(own) - set(CHANNELS)
                if text(rest[0]) != str(len(own)) or unknown or len(set(own)) < len(own):
                    wrong = printable(f"CHANNELS {' '.join(map(text, rest))}")[:80]
                    raise _bad(path, number, f"{wrong} does not count and name {CHANNELS} once")
                channels[inside[-1]] = tuple(own)
            case b"}" if inside and not rest:
                inside.pop()
            case b"MOTION" if names and not inside and not rest:
                encoding, joints = _decoded(names)
                still = np.zeros((0, sum(map(len, channels))))
                tree = Bvh(
                    joints, tuple(parents), np.array(offsets), tuple(channels), 1.0, still, encoding
                )
                return tree, number
            case _:
                hint = "" if names else "; a BVH file begins with HIERARCHY and ROOT"
                raise _bad(path, number, f"unexpected {printable(text(line[:60]))!r}{hint}")
    raise _bad(path, len(lines), "the file ends before MOTION; it seems cut off")


def _decoded(names: list[bytes]) -> tuple[str, tuple[str, ...]]:
    """Encoding and text of names: UTF-8, else Latin-1, which has a letter for every byte."""
    try:
        return "utf-8", tuple(name.decode("utf-8") for name in names)
    except UnicodeDecodeError:
        return "latin-1", tuple(name.decode("latin-1") for name in names)


def _read_motion(path: Path, tree: Bvh, lines: list[bytes], used: int) -> Bvh:
    """The skeleton with the frames that follow the first ``used`` lines of a file."""
    rest = ((number, line) for number, line in enumerate(lines[used:], used + 1) if line.strip())
    frames = int(float(_setting(path, next(rest, None), "Frames", len(lines))[1]))
    number, written = _setting(path, next(rest, None), "Frame Time", len(lines))
    seconds = float(written)
    if not MIN_FRAME_TIME <= seconds <= MAX_FRAME_TIME:
        wrong = f"frame time must be positive, at least {MIN_FRAME_TIME:g} and at most "
        hint = " (seconds expected, not milliseconds)" if seconds > 1 else ""
        raise _bad(path, number, f"{wrong}{MAX_FRAME_TIME:g} second, got {seconds:g}{hint}")
    columns = tree.motion.shape[1]
    most = min(frames, MAX_VALUES // max(tree.width, 1))
    rows: list[np.ndarray] = []
    more = 0
    for number, line in rest:
        if len(rows) == most:
            if most < frames:
                raise _bad(path, number, f"more than {MAX_VALUES} values; cut it into takes")
            more += 1
            continue
        row = _numbers(path, number, line.split(), MAX_VALUE)
        if len(row) != columns:
            cut = "; it seems cut off" if len(row) < columns and number == len(lines) else ""
            wrong = f"frame {len(rows)} has {len(row)} values, expected {columns}{cut}"
            raise _bad(path, number, wrong)
        rows.append(np.array(row))
    if not rows:
        raise _bad(path, len(lines), "the file ends within MOTION; it seems cut off")
    if more:
        warnings.warn(
            f"{path} has more rows than declared: {len(rows) + more}, but the header says "
            f"{frames}; the first {frames} are read",
            stacklevel=3,
        )
    elif len(rows) < frames:
        warnings.warn(
            f"{path} has {len(rows)} rows, but the header says {frames}; was it cut off?",
            stacklevel=3,
        )
    return replace(tree, frame_time=_meant(written), motion=np.stack(rows))


def _setting(path: Path, line: Line | None, name: str, last: int) -> tuple[int, str]:
    """Line number and number of a header line of the motion, such as "Frame Time: 0.01"."""
    if line is None:
        raise _bad(path, last, "the file ends within MOTION; it seems cut off")
    pattern = name.replace(" ", r"\s*").encode() + rb"\s*:\s*(\S+)"
    found = re.fullmatch(pattern, line[1].strip(), re.I)
    if found is None:
        raise _bad(
            path, line[0], f"expected {name!r}, got {printable(text(line[1].strip()[:60]))!r}"
        )
    (value,) = _numbers(path, line[0], [found[1]])
    if name == "Frames" and value < 1:
        raise _bad(path, line[0], f"{value:g} frames; at least 1 is needed")
    return line[0], text(found[1])


def _meant(written: str) -> float:
    """Seconds of a frame: those of a usual rate where `written` is that, rounded or cut."""
    seconds = float(written)
    try:
        digit = 10.0 ** int(Decimal(written).as_tuple().exponent)
    except (InvalidOperation, ValueError):
        return seconds
    near = min(RATES, key=lambda rate: abs(1 / rate - seconds))
    # too few digits say nothing: 0.03 is not 30 a second
    is_meant = abs(1 / near - seconds) <= digit <= 0.05 * seconds
    return 1 / near if is_meant else seconds


def text(content: bytes) -> str:
    """Bytes of a file as text, whatever their encoding."""
    return content.decode("utf-8", errors="replace")


def _numbers(
    path: Path, number: int, words: Sequence[bytes], most: float = math.inf
) -> list[float]:
    """Finite numbers of a line, none larger than `most`."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        wrong = next(text(word) for word in words if not _is_number(word))
        hint = "; numbers have a decimal point, and spaces between them" if "," in wrong else ""
        raise _bad(path, number, f"{printable(wrong[:60])!r} is no number{hint}") from None
    if not all(map(math.isfinite, values)) or max(map(abs, values), default=0) > most:
        bad = next(v for v in values if not abs(v) <= most or math.isinf(v))
        limit = f" and at most {most:g}" if most < math.inf else ""
        raise _bad(path, number, f"values must be finite{limit}, got {bad:g}")
    return values


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _bad(path: Path, number: int, message: str) -> ValueError:
    return ValueError(f"{path} line {number}: {message}. Repair or export it again.")


# --- write -----------------------------------------------------------------------------------


def write_bvh(path: Path, bvh: Bvh) -> None:
    """Write a BVH file: first under a temporary name, then renamed, so no half file is seen."""
    check_table(bvh.motion, sum(map(len, bvh.channels)), f"motion for {path}")
    lines = ["HIERARCHY"]

    def joint_lines(joint: int, indent: str) -> None:
        children = [c for c, above in enumerate(bvh.parents) if above == joint]
        parent = bvh.parents[joint]
        named = bvh.joints[joint] == f"{bvh.joints[parent]} end"
        is_end = named and not children and not bvh.channels[joint]
        kind = "ROOT" if parent < 0 else "JOINT"
        lines.append(indent + ("End Site" if is_end else f"{kind} {bvh.joints[joint]}"))
        lines.append(indent + "{")
        lines.append(f"{indent}\tOFFSET {' '.join(map(repr, bvh.offsets[joint].tolist()))}")
        if not is_end:
            own = bvh.channels[joint]
            lines.append(f"{indent}\tCHANNELS {' '.join([str(len(own)), *own])}")
        for child in children:
            joint_lines(child, indent + "\t")
        lines.append(indent + "}")

    joint_lines(0, "")
    lines += ["MOTION", f"Frames: {len(bvh.motion)}", f"Frame Time: {bvh.frame_time!r}"]
    lines += [" ".join(f"{value:.9g}" for value in row) for row in bvh.motion]
    write_bytes(path, ("\n".join(lines) + "\n").encode(bvh.encoding))
