"""A prediction: prompts are read, continued by the model, and written with who read what."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from tenfold.core import dist
from tenfold.core.checkpoint import write_text
from tenfold.core.divide import divided
from tenfold.data.text import corpus
from tenfold.data.text.tokens import Tokenizer
from tenfold.files import require_no_folder
from tenfold.printable import printable
from tenfold.viz.page import Cell, Section, Table, Tile, relative
from tenfold.viz.predictions import (
    Trained,
    output_name,
    spread,
    write_predictions,
    write_table,
)

from .config import PredictOptions
from .generate import stream, text_of
from .model import Gpt, listening
from .routing import Routing
from .routing_page import VISIBLE, LayerRouting, RoutedText, routing_page

MAX_PROMPT = 2**20
"""Bytes of a prompt file that are read, from its end."""
MAX_PAGE = 2048
"""Tokens on a page of routing."""
SECTIONS = 4
"""Mixture layers on a page of routing."""
SHOWN = 60
"""Characters of the prompt that the terminal shows."""
EXCERPT = 120
"""Characters before and after the end of a text that the table and the page of a folder show."""
LISTED = 60
"""Texts that the page of a folder shows, at most; the table has all."""

Show = Callable[[int, str], None]
"""Takes the parts of continuation n as they are written; first an empty one."""


def predict_file(
    model: Gpt, tokenizer: Tokenizer, inputs: Path, out: Path, options: PredictOptions
) -> list[Path]:
    """Continue a lone text file; show the text as it is written, unless quiet.

    The file is taken to its last byte: after a line end, the continuation begins a line. Writes
    continuation-1.txt and so on (without the prompt), and routing.html of a model with experts.
    Tokens a second go to stderr. The first of several processes does it.
    """

    def work(_: int) -> list[Path]:
        prompt = read_prompt(inputs)
        shows = not options.quiet
        show = on_terminal(prompt, options.samples) if shows else silently
        started = time.perf_counter()
        made = continued(model, tokenizer, prompt, options, show)
        if shows:
            print(flush=True)
        _tell_rate(options.tokens * options.samples, time.perf_counter() - started)
        return write(made, tokenizer, out)

    return divided(1, work)[0]


@dataclass(frozen=True)
class Record:
    """The line of a folder's table that is about one file."""

    name: str
    """Path in the folder."""
    problem: str = ""
    """Reason why it could not be read; empty if it could."""
    end: str = ""
    """The end of the text."""
    begin: str = ""
    """Beginning of the first continuation."""
    files: tuple[str, ...] = ()
    """Files that were written, in the folder of predictions."""


def predict_folder(
    model: Gpt,
    tokenizer: Tokenizer,
    inputs: Path,
    out: Path,
    options: PredictOptions,
    trained: Trained,
) -> list[Path]:
    """Continue every file of a folder and of the folders in it; the processes share the files.

    Writes what `predict_file` does for each, named after it (`c/a.txt-continuation-1.txt`), then
    predictions.csv and predictions.html, which list what could not be read.
    """
    # one list for all: where a process still looks, another may write already
    files = dist.current().gather_objects(prompt_files(inputs, out))[0]
    if not files:
        raise ValueError(f"{inputs} holds no file; give a text file, or a folder of text files")
    started = time.perf_counter()

    def work(index: int) -> Record:
        name = files[index]
        try:
            if (inputs / name).is_symlink():  # it may lead anywhere
                raise ValueError(
                    f"{inputs / name} is a link, which is not followed in a folder; give what it "
                    "leads to, or copy that there"
                )
            require_no_folder(inputs / name)
            if not (inputs / name).is_file():  # a pipe would be waited for
                raise ValueError(f"{inputs / name} is not there, or is not a file")
            prompt = read_prompt(inputs / name)
        except (ValueError, OSError) as error:
            return Record(name, printable(str(error)))
        made = continued(model, tokenizer, prompt, options, silently)
        written = write(made, tokenizer, out, f"{output_name(Path(name))}-")
        return Record(
            name,
            end=in_a_line(end_of(prompt, EXCERPT)),
            begin=in_a_line(made.texts[0][:EXCERPT]),
            files=tuple(path.relative_to(out).as_posix() for path in written),
        )

    records = divided(len(files), work, "texts")
    good = [one for one in records if not one.problem]
    if not good:
        raise ValueError(
            f"{inputs}: none of {len(records)} files can be read; the first: {records[0].problem}"
        )
    table, page = out / "predictions.csv", out / "predictions.html"
    if dist.current().is_first:
        _tell_rate(options.tokens * options.samples * len(good), time.perf_counter() - started)
        write_table(
            table, ["file", "ends with", "goes on", "written to", "problem"], map(_row, records)
        )
        write_predictions(
            out,
            inputs,
            trained,
            [Section("Texts", tables=[_table(spread(good, LISTED), len(good), out)])],
            lead=f"{options.tokens} tokens after the end of each text",
            tiles=[
                Tile("texts continued", f"{len(good):,}"),
                Tile("tokens written", f"{options.tokens * options.samples * len(good):,}"),
            ],
            count=len(records),
            problems=[one.problem for one in records if one.problem],
            meaning=_meaning(options),
        )
    return [out / file for one in good for file in one.files] + [table, page]


# --- read ----------------------------------------------------------------------------------------


def prompt_files(folder: Path, out: Path) -> list[str]:
    """Paths of the files of a folder and of the folders in it, in order; hidden ones do not count.

    Nor does the folder `out`, which holds results and no prompts. Folders in it that may not be
    looked into, and links to folders, stand in their files' place; so does what is no file.
    """
    names: list[Path] = []

    def failed(error: OSError) -> None:  # os.walk would leave the folder out without a word
        if Path(error.filename) == folder:
            raise error
        names.append(Path(error.filename).relative_to(folder))

    for at, folders, files in os.walk(folder, onerror=failed):
        own = Path(at)
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and (own / name).resolve() != out.resolve()
        ]
        links = [name for name in folders if (own / name).is_symlink()]
        names += [
            (own / name).relative_to(folder)
            for name in (*files, *links)
            if not name.startswith(".")
        ]
    return [path.as_posix() for path in sorted(names, key=lambda path: path.parts)]


def read_prompt(file: Path) -> bytes:
    """UTF-8 text of a file (plain, .gz or .xz), of a plain one at most the last 1 MiB.

    Raises ValueError for an empty file, and for what is no text, with its byte and line.
    """
    source = str(file)
    if file.suffix.lower() in (".gz", ".xz"):
        prompt = corpus.read(file, MAX_PROMPT)
    else:
        with file.open("rb") as opened:
            size = opened.seek(0, 2)
            opened.seek(max(size - MAX_PROMPT, 0))
            prompt = opened.read(MAX_PROMPT)
        if size > MAX_PROMPT:
            # the cut may lie inside a character
            cut = next((i for i, byte in enumerate(prompt[:4]) if byte & 0xC0 != 0x80), 0)
            prompt = prompt[cut:]
            source = f"{file}, read from byte {size - len(prompt)},"
    if not prompt:
        raise ValueError(f"{file} is empty; give a text to continue, a single letter will do")
    corpus.check_text(prompt, source)
    return prompt


# --- predict -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Continuation:
    """The texts that a model wrote after a prompt, and who read the first of them."""

    texts: tuple[str, ...]
    routed: RoutedText | None
    """The end of the prompt with the first text; None for a dense model."""


def silently(sample: int, part: str) -> None:
    """Show nothing."""


def continued(
    model: Gpt,
    tokenizer: Tokenizer,
    prompt: bytes,
    options: PredictOptions,
    show: Show = silently,
) -> Continuation:
    """Continue a text `options.samples` times.

    Args:
        model: The whole model.
        tokenizer: The one that it was trained with.
        prompt: UTF-8 text.
        options: Tokens to write, and how they are drawn.
        show: Is given the text as it is written.

    Raises:
        ValueError: The prompt is empty, or the weights give no finite logits.
    """
    ids = torch.from_numpy(tokenizer.encode(prompt).astype(np.int64))
    texts: list[str] = []
    first: list[int] = []
    for sample in range(options.samples):
        show(sample, "")
        drawn: list[int] = []
        parts = []
        for part in text_of(_kept(stream(model, ids, options, sample), drawn), tokenizer):
            parts.append(part)
            show(sample, part)
        texts.append("".join(parts))
        first = first or drawn
    if not model.cfg.moe_layers:
        return Continuation(tuple(texts), None)
    most = min(model.cfg.seq, MAX_PAGE)
    # a long continuation leaves the prompt half of the window: the text goes over into it
    tail = ids[-max(most - len(first), most // 2, 1) :]
    first = first[: most - len(tail)]
    whole = torch.cat([tail, torch.tensor(first, dtype=torch.int64)])
    return Continuation(tuple(texts), routed_text(model, whole, written=len(first)))


def routed_text(
    model: Gpt,
    ids: Int64[Tensor, " time"],
    layers: Sequence[int] | None = None,
    written: int = 0,
) -> RoutedText:
    """Ask the routers who takes each token of a text.

    Args:
        model: The whole model.
        ids: At most seq tokens, of which the last `written` are the model's.
        layers: Mixture blocks to ask, at most 4; None spreads them evenly.
        written: Tokens at the end that the model wrote.

    Raises:
        ValueError: The model has no experts, or one of the blocks has none.
    """
    have = model.cfg.moe_layers
    if not have:
        raise ValueError("the model is dense: no token is routed; train with model.kind moe")
    if layers is None:
        places = np.linspace(0, len(have) - 1, min(SECTIONS, len(have))).round().astype(int)
        layers = [have[i] for i in places]
    wrong = [i for i in layers if i not in have]
    if wrong or not 0 < len(layers) <= SECTIONS:
        raise ValueError(
            f"layers {list(layers)}: give 1 to {SECTIONS} of the mixture blocks {have}"
        )
    decided: dict[int, LayerRouting] = {}

    def note(index: int, routing: Routing) -> None:
        decided[index] = LayerRouting(index, routing.probs.cpu(), routing.experts.cpu())

    with listening(model, note):
        model(ids[None].to(next(model.parameters()).device))
    return RoutedText(ids, written, tuple(decided[i] for i in layers), len(have))


def _kept(ids: Iterator[int], drawn: list[int]) -> Iterator[int]:
    for token in ids:
        drawn.append(token)
        yield token


# --- write ---------------------------------------------------------------------------------------


def write(made: Continuation, tokenizer: Tokenizer, out: Path, prefix: str = "") -> list[Path]:
    """Write the texts, and the page of who read what, under names that begin with `prefix`."""
    written = []
    for number, text in enumerate(made.texts, 1):
        written.append(out / f"{prefix}continuation-{number}.txt")
        write_text(written[-1], text)
    if made.routed is not None:
        written.append(out / f"{prefix}routing.html")
        write_text(written[-1], routing_page(made.routed, tokenizer))
    return written


def on_terminal(prompt: bytes, samples: int) -> Show:
    """Print the end of the prompt, and each part of what follows, at once."""

    def show(sample: int, part: str) -> None:
        if part:
            _print(part)
            return
        if sample:
            print()
        if samples > 1:
            print(f"--- continuation {sample + 1} of {samples}")
        _print(end_of(prompt, SHOWN))

    return show


def _print(part: str) -> None:
    """Print at once; what the terminal cannot show becomes a question mark."""
    encoding = sys.stdout.encoding or "utf-8"
    part = part.translate(VISIBLE).encode(encoding, "replace").decode(encoding)
    print(part, end="", flush=True)


def _tell_rate(count: int, seconds: float) -> None:
    print(
        f"{count} tokens in {seconds:.1f} s, {count / max(seconds, 1e-9):.0f} a second",
        file=sys.stderr,
    )


def end_of(prompt: bytes, most: int) -> str:
    """The last characters of a text, at most so many."""
    return prompt.decode("utf-8")[-most:]


def in_a_line(text: str) -> str:
    """The text without line ends, and without what would act on a terminal or a page."""
    return text.translate(VISIBLE | {9: 32}).replace("\n", " ↵ ")


def _row(one: Record) -> list[str]:
    return [printable(one.name), one.end, one.begin, printable("; ".join(one.files)), one.problem]


def _table(shown: Sequence[Record], count: int, out: Path) -> Table:
    """List each text's end and continuation; names lead to the page of routing, or the text."""
    here = out / "predictions.html"
    rows = [
        [
            Cell(printable(one.name), href=relative(out / one.files[-1], here)),
            Cell(one.end, code=True),
            Cell(one.begin, code=True),
        ]
        for one in shown
    ]
    note = (
        f"{len(shown)} of {count:,} texts; predictions.csv has all." if count > len(shown) else ""
    )
    return Table("", ["file", "ends with", "goes on"], rows, note, text=True)


def _meaning(options: PredictOptions) -> list[str]:
    drawn = (
        "always the likeliest token"
        if options.temperature == 0
        else f"temperature {options.temperature:g}, top-p {options.top_p:g}, seed {options.seed}"
    )
    return [
        f"Tokens are drawn one after another ({drawn}). The same options give the same text, "
        "whether a file is continued alone or in a folder.",
        "The model writes what is likely after the text that it was trained on. What it says may "
        "be wrong.",
    ]
