"""Damaged inputs through all readers: none may end in a traceback, hang, or take 2 GB.

    OMP_NUM_THREADS=1 .venv/bin/python tests/mutate.py [--count 300] [--seed 0] [--only BVH]

An input is a valid sample (`readers.py`) of which one file is damaged; which one, and how, follows
from the seed and the input's number, so that `--only NAME --number N` repeats one with its
traceback. The exit code is 1 if anything but "ok" and "refused" came out.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import lzma
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

from readers import Reader, readers

SECONDS = 20.0
"""For one input; the slowest valid sample takes about two."""
BYTES = 2 * 2**30
"""Of memory that one input may take beyond what the process had before."""
OUTCOMES = ("ok", "refused", "TRACEBACK", "HANG", "OVER_MEMORY")
HUGE = ("999999999999", "-1", "0", "1e308", "nan", "-inf", "1e999", "2147483648", "0x", "\u0663")
PLAIN = (None, True, -1, 0, 1e308, 10**30, float("nan"), float("inf"), "", "text", [], {}, [[]],
         "../../etc/passwd", "\0", "a" * 5000, "\x1b[31m", [0] * 50, "\ud800")  # fmt: skip
"""Values that stand where others belong in JSON."""


# --- damage --------------------------------------------------------------------------------------


def truncated(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def flipped(content: bytes, draw: random.Random) -> bytes:
    return _flipped(content, draw, len(content))


def head_flipped(content: bytes, draw: random.Random) -> bytes:
    return _flipped(content, draw, 96)


def _flipped(content: bytes, draw: random.Random, end: int) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.randint(1, 8) if changed else 0):
        changed[draw.randrange(min(end, len(changed)))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def inserted(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content) + 1)
    return content[:at] + draw.randbytes(draw.randint(1, 200)) + content[at:]


def filled(content: bytes, draw: random.Random) -> bytes:
    """A span of zeros or ones: sizes become nothing, or as large as they can be."""
    at, length = draw.randrange(len(content) + 1), draw.choice((1, 2, 4, 8, 64, 1024))
    value = draw.choice((b"\0", b"\xff", b"\x7f"))
    return content[:at] + value * min(length, len(content) - at) + content[at + length :]


def repeated(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content) + 1)
    part = content[at : at + draw.randint(1, 400)]
    return content[:at] + part * draw.choice((2, 3, 500)) + content[at:]


def nothing(content: bytes, draw: random.Random) -> bytes:
    return b""


def noise(content: bytes, draw: random.Random) -> bytes:
    return draw.randbytes(draw.choice((1, 16, 5000)))


def numbered(content: bytes, draw: random.Random) -> bytes:
    """A number in a text, or in a header of text, becomes another."""
    starts = [i for i, c in enumerate(content[:20000]) if 48 <= c < 58]
    if not starts:
        return filled(content, draw)
    end = at = draw.choice(starts)
    while end < len(content) and 48 <= content[end] < 58:
        end += 1
    return content[:at] + draw.choice(HUGE).encode() + content[end:]


def worded(content: bytes, draw: random.Random) -> bytes:
    """A line is left out, doubled, or moved."""
    lines = content.split(b"\n")
    at = draw.randrange(len(lines))
    line = lines.pop(at)
    for _ in range(draw.choice((0, 2, 5000))):
        lines.insert(draw.randrange(len(lines) + 1), line)
    return b"\n".join(lines)


def deep(content: bytes, draw: random.Random) -> bytes:
    return draw.choice((b"[", b'{"a":')) * 100_000


def in_json(content: bytes, draw: random.Random) -> bytes:
    """One value of a JSON text, or of a line of it, is replaced, left out or doubled."""
    lines = content.split(b"\n") if content.count(b"\n{") else [content]
    at = draw.randrange(len(lines))
    try:
        value = json.loads(lines[at])
    except (ValueError, RecursionError):
        return numbered(content, draw)
    for _ in range(draw.choice((1, 1, 1, 3))):
        value = _replaced(value, draw)
    lines[at] = json.dumps(value).encode()
    return b"\n".join(lines)


def _replaced(value: Any, draw: random.Random) -> Any:
    places = list(_places(value))
    if not places or draw.random() < 0.03:
        return draw.choice(PLAIN)
    holder, key = draw.choice(places)
    how = draw.random()
    if how < 0.15:
        del holder[key]
    elif how < 0.25 and isinstance(holder, list):
        holder.insert(0, holder[key])
    elif how < 0.3:
        nested: Any = 0
        for _ in range(300):
            nested = [nested]
        holder[key] = nested
    else:
        holder[key] = draw.choice(PLAIN)
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if not isinstance(value, dict | list):
        return
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        yield from _places(value[key])


def npy_lies(content: bytes, draw: random.Random) -> bytes:
    """A header of numpy that promises more than there is, or another kind."""
    import numpy as np

    shape = draw.choice(((10**12, 117), (-1, 3), (2**31, 2**31), (60, 38, 3, 1), (), (0, 38, 3)))
    kind = draw.choice(("<f4", "<f8", "|O", "<U9", "<c16", "|V8", ">i8"))
    header = io.BytesIO()
    about = {"descr": kind, "fortran_order": draw.random() < 0.5, "shape": shape}
    np.lib.format.write_array_header_1_0(header, about)
    return header.getvalue() + content[128:]


def npy_of(size: int, content: bytes) -> bytes:
    """The header of an array with so many bytes, of the kind and further axes of another."""
    import numpy as np

    array = np.load(io.BytesIO(content))
    shape = (size // max(1, array[:1].nbytes), *array.shape[1:])
    header, about = io.BytesIO(), {"descr": array.dtype.str, "fortran_order": False}
    np.lib.format.write_array_header_1_0(header, {**about, "shape": shape})
    return header.getvalue()


def png_lies(content: bytes, draw: random.Random) -> bytes:
    """Sizes that a PNG promises, under a checksum that is right."""
    wide, tall = draw.choice(((9000, 9000), (2**31 - 1, 2**31 - 1), (1, 60000), (0, 5), (12000, 9)))
    head = b"IHDR" + wide.to_bytes(4) + tall.to_bytes(4) + content[24:29]
    return content[:12] + head + zlib.crc32(head).to_bytes(4) + content[33:]


def safetensors_lies(content: bytes, draw: random.Random) -> bytes:
    """The JSON of a safetensors file damaged, its length right."""
    length = int.from_bytes(content[:8], "little")
    header = in_json(content[8 : 8 + length], draw)
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def in_zip(content: bytes, draw: random.Random) -> bytes:
    """A member of an archive damaged, the archive whole; or one that unpacks to 3 GB."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        chosen = draw.choice(old.namelist())
        for item in old.infolist():
            inner = old.read(item)
            new.writestr(item, damaged(inner, draw) if item.filename == chosen else inner)
    return out.getvalue()


def zip_bomb(content: bytes, draw: random.Random) -> bytes:
    """An archive whose largest member goes on with zeros for 3 GB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        items = sorted(old.infolist(), key=lambda item: item.file_size)
        name, inner = items[-1].filename, old.read(items[-1])
    if inner.startswith(b"\x93NUMPY"):  # a bomb that numpy, too, reads to its end
        inner = npy_of(3072 * 2**20, inner)
    head = packer.compress(inner) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = head + zeros * 3072 + b"\x03\0"
    info = zipfile.ZipInfo(name)
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as new:
        new.writestr(info, packed)  # stored; then called deflated, with other sizes
        info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, len(inner) + 3072 * 2**20
        info.compress_size = len(packed)
    return raw.getvalue()


def gz_bomb(content: bytes, draw: random.Random) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = packer.compress(b"a" * 2**20) + packer.flush(zlib.Z_FULL_FLUSH)
    return content[:10] + zeros * 3072 + b"\x03\0" + bytes(8)


def repacked(content: bytes, draw: random.Random) -> bytes:
    """The text of a packed file damaged, and packed again."""
    module: Any = gzip if content.startswith(b"\x1f\x8b") else lzma
    return module.compress(damaged(module.decompress(content), draw))


Damage = Callable[[bytes, random.Random], bytes]
ANY: tuple[Damage, ...] = (truncated, flipped, head_flipped, inserted, filled, repeated, noise)
TEXT: tuple[Damage, ...] = (numbered, numbered, worded, truncated, filled, inserted, flipped)
JSON: tuple[Damage, ...] = (in_json,) * 7 + (deep,)
OWN: dict[bytes, tuple[Damage, ...]] = {
    b"\x93NUMPY": (npy_lies, npy_lies, *ANY, numbered),
    b"\x89PNG": (png_lies, *ANY),
    b"PK\x03\x04": (in_zip, in_zip, in_zip, zip_bomb, *ANY),
    b"\x1f\x8b": (repacked, gz_bomb, *ANY),
    b"\xfd7zXZ": (repacked, repacked, *ANY),
}
"""First bytes of a file -> what is done to it."""


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content with one thing wrong, of a kind that fits it."""
    if not content or draw.random() < 0.03:
        return nothing(content, draw)
    kinds = next((kinds for mark, kinds in OWN.items() if content.startswith(mark)), None)
    if kinds is None and content[8:10] in (b'{"', b"{ "):
        kinds = (safetensors_lies, safetensors_lies, *ANY)
    if kinds is None and content[:1] in (b"{", b"["):
        kinds = (*JSON, *TEXT[:4])
    if kinds is None:
        is_text = not any(c < 9 for c in content[:500])
        kinds = TEXT if is_text else ANY
    return draw.choice(kinds)(content, draw)


def damage(folder: Path, pattern: str, draw: random.Random) -> str:
    """Damage one file of a sample; say which and how it was chosen."""
    found = sorted(folder.glob(pattern))
    files = [f for p in found for f in (sorted(p.rglob("*")) if p.is_dir() else [p]) if f.is_file()]
    file = draw.choice(files)
    file.write_bytes(damaged(file.read_bytes(), draw))
    if draw.random() < 0.04:  # of another kind than its name says
        file.rename(file.with_suffix(draw.choice((".jpg", ".nc", ".npz", ".txt", ".safetensors"))))
    return str(file.relative_to(folder))


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    number: int
    reader: str
    file: str
    kind: str
    what: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0


def tried(reader: Reader, folder: Path) -> tuple[str, str]:
    """Read; the kind of outcome and, if it was refused, the reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(folder)
        return "ok", ""
    except (ValueError, OSError) as error:
        text = str(error)
        if type(error) in (ValueError, FileNotFoundError, *_own()) and text and "\n" not in text:
            return "refused", text[:1000]
        return "TRACEBACK", f"{type(error).__name__}: {text[:300]!r} is no line of ours"
    except BaseException:
        return "TRACEBACK", traceback.format_exc(limit=-4)[-3000:]


def _own() -> tuple[type[Exception], ...]:
    from tenfold.core.errors import UsageError

    return (UsageError, NotADirectoryError, IsADirectoryError)


def peak(reset: bool = False) -> int:
    """Largest number of bytes that this process has held since it was last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


class Bench:
    """Samples, made once, and the processes that read damaged copies of them."""

    def __init__(self, folder: Path, seed: int, chosen: dict[str, Reader]) -> None:
        self.folder, self.seed, self.readers = folder, seed, chosen
        self.samples: dict[Any, Path] = {}
        self.names = sorted(chosen, key=lambda name: random.Random(f"{seed}/{name}").random())

    def sample(self, name: str) -> Path:
        """The valid sample of a reader; readers that share it have it once."""
        make = self.readers[name].make
        if make not in self.samples:
            folder = self.folder / f"sample{len(self.samples)}"
            folder.mkdir()
            make(folder)
            self.samples[make] = folder
        return self.samples[make]

    def read(self, number: int) -> Outcome:
        """Damage a sample, and read it in this process."""
        name = self.names[number % len(self.names)]
        reader, copy = self.readers[name], self.folder / "input"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.sample(name), copy)
        file = damage(copy, reader.damaged, random.Random(f"{self.seed}/{number}/{name}"))
        before = peak(reset=True)
        began = time.monotonic()
        kind, what = tried(reader, copy)
        taken, more = time.monotonic() - began, peak() - before
        if more > BYTES:
            kind = "OVER_MEMORY"
        return Outcome(number, name, file, kind, what, round(taken, 2), round(more / 1e6))

    def check_samples(self) -> None:
        """Read every sample as it is: one that is refused would hide all else of its reader."""
        wrong = []
        for name, reader in self.readers.items():
            copy = self.folder / "input"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(self.sample(name), copy)
            kind, what = tried(reader, copy)
            wrong += [] if kind == "ok" or name == "GRIB" else [f"{name}: {what}"]
        if wrong:
            raise ValueError("samples that cannot be read:\n" + "\n".join(wrong))

    def run(self, count: int) -> list[Outcome]:
        """Read so many inputs in processes of their own; one that hangs or dies is replaced."""
        found: list[Outcome] = []
        for name in self.names:  # not in a process that may die
            self.sample(name)
        while len(found) < count:
            reading, writing = os.pipe()
            child = os.fork()
            if not child:
                self._serve(writing, range(len(found), count))
            os.close(writing)
            self._collect(reading, found, child)
            os.close(reading)
        return found

    def _serve(self, pipe: int, numbers: range) -> None:
        code = 1
        try:
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            limit = size + BYTES + 2**30  # what is above is refused by the system, and not hidden
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            for number in numbers:
                os.write(pipe, json.dumps(asdict(self.read(number))).encode() + b"\n")
            code = 0
        except BaseException:  # of this script: the samples are read in `tried`
            what = Outcome(numbers[0], "script", "", "TRACEBACK", traceback.format_exc()[-3000:])
            os.write(pipe, json.dumps(asdict(what)).encode() + b"\n")
        finally:
            os._exit(code)

    def _collect(self, pipe: int, found: list[Outcome], child: int) -> None:
        rest, ready = b"", True
        while ready:
            ready = bool(select.select([pipe], [], [], SECONDS)[0])
            content = os.read(pipe, 2**16) if ready else b""
            if not content:
                break
            *lines, rest = (rest + content).split(b"\n")
            found += [Outcome(**json.loads(line)) for line in lines]
        if not ready:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if found and found[-1].reader == "script":
            raise AssertionError(found[-1].what)
        self._lost(found, "TRACEBACK" if ready else "HANG", status)

    def _lost(self, found: list[Outcome], kind: str, status: int) -> None:
        """The child has ended: it is done, it died, or it took too long."""
        if kind == "HANG" or os.waitstatus_to_exitcode(status):
            number = len(found)
            name = self.names[number % len(self.names)]
            what = f"signal {-os.waitstatus_to_exitcode(status)}" if kind != "HANG" else ""
            found.append(Outcome(number, name, "", kind, what))


def table(found: list[Outcome]) -> str:
    """Counts by reader and outcome."""
    counts = Counter((one.reader, one.kind) for one in found)
    lines = [f"{'reader':16}" + "".join(f"{kind:>12}" for kind in OUTCOMES)]
    for name in sorted({one.reader for one in found}):
        lines.append(f"{name:16}" + "".join(f"{counts[name, kind]:12}" for kind in OUTCOMES))
    totals = Counter(one.kind for one in found)
    lines.append(f"{'all':16}" + "".join(f"{totals[kind]:12}" for kind in OUTCOMES))
    return "\n".join(lines)


def main() -> None:
    """Read the damaged inputs, print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers whose name begins so")
    parser.add_argument("--number", type=int, default=-1, help="one input, in this process")
    parser.add_argument("--refused", action="store_true", help="print every reason, too")
    asked = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    chosen = {name: one for name, one in readers().items() if name.startswith(asked.only)}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as no_data:
        os.environ["TENFOLD_DATA"] = no_data  # data sets of this machine are not for these runs
        bench = Bench(Path(folder), asked.seed, chosen)
        bench.check_samples()
        if asked.number >= 0:
            print(bench.read(asked.number))
            return
        found = bench.run(asked.count)
    for one in found:
        if one.kind not in OUTCOMES[:2] or asked.refused:
            print(f"{one.number} {one.reader}, {one.file}: {one.kind} {one.what}")
    print(table(found))
    slowest = max(found, key=lambda one: one.seconds)
    largest = max(found, key=lambda one: one.megabytes)
    print(f"slowest {slowest.seconds} s ({slowest.reader}), most {largest.megabytes} MB "
          f"({largest.reader})")  # fmt: skip
    sys.exit(any(one.kind not in OUTCOMES[:2] for one in found))


if __name__ == "__main__":
    main()
