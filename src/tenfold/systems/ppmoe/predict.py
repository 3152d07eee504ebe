"""What a person looks at: which expert reads what, bits per byte, and a text that is continued."""

from __future__ import annotations

import codecs
import html
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tenfold.core.checkpoint import write_bytes, write_text
from tenfold.data.text import corpus
from tenfold.data.text.tokens import Tokenizer, TokenWindows
from tenfold.viz import plots

from .generate import stream, text_of
from .model import Gpt
from .routing import Routing

if TYPE_CHECKING:
    from .system import Ppmoe

WINDOWS = 32
"""Windows of each domain that the report reads."""
MAX_PROMPT = 2**20
"""Bytes of a prompt file that are read, from its end."""
MAX_PAGE = 2048
"""Tokens on a page of routing."""
SHOWN = 60
"""Characters of the prompt that the terminal shows."""
SECTIONS = 4
"""Mixture layers on a page of routing."""
# Control characters act on a terminal, and some turn the reading direction: show, do not obey.
VISIBLE = {c: 0x2400 + c for c in range(32) if c not in (9, 10)} | {127: 0x2421}
VISIBLE |= dict.fromkeys(
    [*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD
)


@contextmanager
def _listening(model: Gpt, listener: Callable[[int, Routing], None]) -> Iterator[None]:
    """Call `listener` with each mixture layer's routing, in eval mode and without gradients."""
    before, trains = model.routed, model.training
    model.routed = listener
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.routed = before
        model.train(trains)


def expert_load(
    model: Gpt, windows: dict[str, Int64[Tensor, "row time"]], batch: int = 32
) -> dict[str, Float[np.ndarray, "layer expert"]]:
    """Share of each domain's tokens that each expert of each mixture layer is chosen for.

    `windows` are ids of at most seq tokens a row. With top-k, shares are of the k choices; rows of
    the result sum to 1. Tokens that a full queue drops are counted too.
    """
    layers = {index: row for row, index in enumerate(model.cfg.moe_layers)}
    device = next(model.parameters()).device
    shares = {}
    for domain, tokens in windows.items():
        if not tokens.numel():
            raise ValueError(f"{domain} has no tokens to route; give one window or more")
        counts = torch.zeros(len(layers), model.cfg.experts, dtype=torch.int64)

        def add(index: int, routing: Routing, counts: Tensor = counts) -> None:
            counts[layers[index]] += routing.counts.cpu()

        with _listening(model, add):
            for part in tokens.split(batch):
                model(part.to(device))
        shares[domain] = (counts / counts.sum(1, keepdim=True)).double().numpy()
    return shares


def some_windows(
    windows: TokenWindows, most: int = WINDOWS
) -> dict[str, Int64[Tensor, "row time"]]:
    """Up to `most` whole windows of each domain, from all over it."""
    found = {}
    for domain in windows.domains:
        whole = (len(windows.ids[domain]) - 1) // windows.seq  # without a padded last one
        places = np.unique(np.linspace(0, max(whole - 1, 0), most).round().astype(int)).tolist()
        rows = np.concatenate([windows.in_order(domain, i, i + 1).tokens for i in places])
        own = min(windows.seq, len(windows.ids[domain]))  # a domain shorter than a window
        found[domain] = torch.from_numpy(rows[:, :own])
    return found


def report_pictures(system: Ppmoe, out: Path) -> dict[Path, str]:
    """For the report: expert load by domain (first, middle, last mixture layer), bits per byte."""
    captions: dict[Path, str] = {}
    model = system.model
    assert isinstance(model, Gpt)
    layers = model.cfg.moe_layers
    if layers:
        load = expert_load(model, some_windows(system.windows("test")))
        for row in sorted({0, len(layers) // 2, len(layers) - 1}):
            path = out / f"expert-load-{layers[row]}.png"
            table = {domain: shares[row] for domain, shares in load.items()}
            write_bytes(path, _load_plot(table, layers[row]))
            captions[path] = _load_caption(table, layers[row], model.cfg.top_k)
    bits = system.bits
    if bits:
        table = {"model": bits}
        for name, metrics in system.baselines("test").items():
            table[name] = {domain: metrics[f"bits/{domain}/per byte"] for domain in bits}
        path = out / "bits-per-byte.png"
        write_bytes(path, plots.bars(table, title="Test text", ylabel="bits per byte"))
        captions[path] = (
            "Bits per byte of each domain's test text, beside baselines that only count bytes of "
            "the training text. Lower is better; text that is not compressed has 8."
        )
    return captions


def _load_plot(table: dict[str, np.ndarray], layer: int) -> bytes:
    percent = (100 * np.stack(list(table.values()))).round(1)
    few = percent.shape[1] <= 16
    return plots.heatmap(
        percent,
        rows=[domain if len(domain) <= 24 else domain[:23] + "…" for domain in table],
        columns=[str(e) for e in range(percent.shape[1])] if few else (),
        title=f"Who reads what, block {layer}",
        xlabel="expert",
        unit="share of the domain's tokens (%)",
        size=(5.4, 1.5 + 0.4 * max(len(percent), 3)),
    )


def _load_caption(table: dict[str, np.ndarray], layer: int, top_k: int) -> str:
    mean = np.stack(list(table.values())).mean(0)
    pairs = []
    for domain, shares in table.items():
        best = np.argsort(-shares, kind="stable")[:2]
        pairs.append(f"{domain} {shares[best].sum():.0%} ({', '.join(map(str, best))})")
    each = "" if top_k == 1 else f" Each token has {top_k} experts; shares are of all choices."
    return (
        f"Block {layer}: share of each domain's test tokens that the router sends to each expert."
        f"{each} Over all domains the most loaded expert gets {mean.max() / mean.mean():.2f} times "
        f"the mean (1 is balanced). The two experts used most: {', '.join(pairs)}."
    )


# A page of routing ---------------------------------------------------------------------------

LIGHT = "#cfe4fa #ffd9b8 #c9ebd3 #f6cfe4 #f4e6a2 #d9d2f5 #bdeaf0 #f9cdc6 #dfe8b4 #e3d3c3".split()
DARK = "#1d4a73 #7a4312 #1d5a38 #6e2c54 #665808 #473a86 #125963 #7c2f25 #4d5a17 #5a4432".split()


@dataclass(frozen=True)
class _Layer:
    """A mixture layer's decisions on one text."""

    index: int
    probs: Float[Tensor, "token expert"]
    experts: Int64[Tensor, "token choice"]
    kept: Tensor | None


def routing_page(
    model: Gpt,
    tokenizer: Tokenizer,
    ids: Int64[Tensor, " time"],
    layers: Sequence[int] | None = None,
    written: int = 0,
) -> str:
    """A self-contained HTML page: the text, every token coloured by its expert, a layer a section.

    `ids`: at most seq tokens, of which the last `written` are the model's. `layers`: mixture
    blocks to show, at most 4; None spreads them evenly. With top-k the first choice decides the
    colour. Raises ValueError for a model without experts or a block that has none.
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
    found: dict[int, _Layer] = {}

    def note(index: int, routing: Routing) -> None:
        kept = None if routing.keep is None else routing.keep.cpu()
        found[index] = _Layer(index, routing.probs.cpu(), routing.experts.cpu(), kept)

    with _listening(model, note):
        model(ids[None].to(next(model.parameters()).device))
    pieces = _pieces(tokenizer, ids.tolist())
    sections = "".join(_section(found[i], pieces, written) for i in layers)
    theirs = f" The frame marks the last {written}, written by the model." if written else ""
    return PAGE.format(
        light="".join(f"--e{i}:{c};" for i, c in enumerate(LIGHT)),
        dark="".join(f"--e{i}:{c};" for i, c in enumerate(DARK)),
        classes="".join(f".e{i}{{background:var(--e{i})}}" for i in range(len(LIGHT))),
        intro=f"{len(ids)} tokens, {model.cfg.experts} experts in each of {len(have)} mixture "
        f"blocks, top-{model.cfg.top_k}.{theirs} Colours belong to one block: expert 3 of one has "
        "nothing to do with expert 3 of another; shares are of the tokens shown. Hold the pointer "
        "over a token for its probabilities.",
        sections=sections,
    )


def _pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[str, str]]:
    """(text to show, name) of each token; bytes of a character that is not whole show nothing."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = []
    for place, token in enumerate(ids):
        content = tokenizer.decode([token])
        shown = decoder.decode(content, final=place == len(ids) - 1)
        try:
            name = repr(content.decode("utf-8"))
        except UnicodeDecodeError:
            name = "bytes " + content.hex(" ")
        pieces.append((shown.translate(VISIBLE), name))
    return pieces


def _section(layer: _Layer, pieces: list[tuple[str, str]], written: int) -> str:
    first = layer.experts[:, 0]
    shares = torch.bincount(first, minlength=layer.probs.shape[1]) / len(first)
    used = shares.argsort(descending=True, stable=True)[: len(LIGHT)].sort().values.tolist()
    tint = {expert: f"e{i}" for i, expert in enumerate(used)}
    legend = [
        f'<li><b class="{tint[e]}">{e}</b> {float(shares[e]):.0%}</li>' for e in used if shares[e]
    ]
    if len(shares) > len(used):
        legend.append(f'<li><b class="rest">others</b> {1 - float(shares[used].sum()):.0%}</li>')
    spans = []
    for place, (shown, name) in enumerate(pieces):
        if written and place == len(pieces) - written:
            spans.append('<span class="written">')
        classes = [tint.get(int(first[place]), "rest")]
        if not shown:
            classes.append("part")
        title = f"{name}: {_odds(layer, place)}"
        spans.append(
            f'<span class="{" ".join(classes)}" title="{html.escape(title)}">'
            f"{html.escape(shown).replace(chr(10), '<i>↵</i>' + chr(10))}</span>"
        )
    if written:
        spans.append("</span>")
    return (
        f"<section><h2>Block {layer.index}</h2><ul>{''.join(legend)}</ul>"
        f"<pre>{''.join(spans)}</pre></section>\n"
    )


def _odds(layer: _Layer, place: int) -> str:
    """Probabilities of a token's experts, and of the best one that it did not get."""
    probs, chosen = layer.probs[place], layer.experts[place].tolist()
    others = [e for e in probs.argsort(descending=True, stable=True).tolist() if e not in chosen]
    words = [f"expert {e} {float(probs[e]):.0%}" for e in chosen]
    if layer.kept is not None:
        words = [
            w if kept else w + " (dropped: its queue was full)"
            for w, kept in zip(words, layer.kept[place].tolist(), strict=True)
        ]
    return ", ".join(words) + "".join(f"; then {e} {float(probs[e]):.0%}" for e in others[:1])


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src 'unsafe-inline'">
<title>Which expert reads what</title>
<style>
:root {{ --ground: #f5f6f8; --card: #ffffff; --ink: #1c2024; --soft: #5b6570; --line: #dde1e6;
  --rest: #e4e6e9; {light} }}
@media (prefers-color-scheme: dark) {{ :root {{ --ground: #101316; --card: #191d21;
  --ink: #e6e9ec; --soft: #9aa5b0; --line: #30363d; --rest: #363c43; {dark} }} }}
body {{ margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }}
main {{ max-width: 1000px; margin: 0 auto; padding: 1.25rem 1rem 3rem; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; margin: 0 0 .35rem; }}
h2 {{ font-size: 1.15rem; margin: 0 0 .5rem; }}
p {{ color: var(--soft); font-size: .9rem; margin: .3rem 0 1rem; }}
section {{ background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem 1.1rem; margin: 0 0 1rem; }}
ul {{ display: flex; flex-wrap: wrap; gap: .3rem .9rem; list-style: none; padding: 0;
  margin: 0 0 .75rem; font-size: .9rem; font-variant-numeric: tabular-nums; }}
b {{ display: inline-block; min-width: 1.6rem; padding: 0 .35rem; border-radius: 4px;
  text-align: center; font-weight: 600; }}
pre {{ margin: 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .9rem/1.75 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
pre span {{ padding: .1rem 0; }}
pre i {{ color: var(--soft); font-style: normal; }}
.part {{ padding: .1rem 2px; }}
.written {{ outline: 2px solid var(--ink); outline-offset: 1px; }}
.rest {{ background: var(--rest); }}
{classes}
</style>
</head>
<body><main>
<h1>Which expert reads what</h1>
<p>{intro}</p>
{sections}</main></body>
</html>
"""


# A file to continue --------------------------------------------------------------------------


def read_prompt(file: Path) -> bytes:
    """UTF-8 text of a file (plain, .gz or .xz), of a plain one at most the last 1 MiB.

    Raises ValueError for an empty file, a folder, and for what is no text, with its byte and line.
    """
    if file.is_dir():
        raise ValueError(f"{file} is a folder; give a text file, whose end is continued")
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


def predict_file(system: Ppmoe, inputs: Path, out: Path) -> list[Path]:
    """Continue a text file as `system.options` say, `samples` times.

    The file is taken to its last byte: after a line end, the continuation begins a line. Writes
    continuation-1.txt and so on (without the prompt), and routing.html of a model with experts.
    Shows the text as it is written, unless quiet; tokens a second go to stderr.
    """
    model, options = system.model, system.options
    assert isinstance(model, Gpt)
    prompt = read_prompt(inputs)
    ids = torch.from_numpy(system.tokenizer.encode(prompt).astype(np.int64))
    written: list[Path] = []
    first: list[int] = []
    started = time.perf_counter()
    for sample in range(options.samples):
        if not options.quiet:
            if options.samples > 1:
                print(f"--- continuation {sample + 1} of {options.samples}")
            _show(prompt.decode("utf-8")[-SHOWN:])
        drawn: list[int] = []
        parts = []
        for part in text_of(_kept(stream(model, ids, options, sample), drawn), system.tokenizer):
            parts.append(part)
            if not options.quiet:
                _show(part)
        if not options.quiet:
            print(flush=True)
        first = first or drawn
        written.append(out / f"continuation-{sample + 1}.txt")
        write_text(written[-1], "".join(parts))
    seconds = time.perf_counter() - started
    count = options.tokens * options.samples
    print(
        f"{count} tokens in {seconds:.1f} s, {count / max(seconds, 1e-9):.0f} a second",
        file=sys.stderr,
    )
    if model.cfg.moe_layers:
        most = min(model.cfg.seq, MAX_PAGE)
        # a long continuation leaves the prompt half of the window: the text goes over into it
        tail = ids[-max(most - len(first), most // 2, 1) :]
        first = first[: most - len(tail)]
        whole = torch.cat([tail, torch.tensor(first, dtype=torch.int64)])
        written.append(out / "routing.html")
        page = routing_page(model, system.tokenizer, whole, written=len(first))
        write_text(written[-1], page)
    return written


def _kept(ids: Iterator[int], drawn: list[int]) -> Iterator[int]:
    for token in ids:
        drawn.append(token)
        yield token


def _show(part: str) -> None:
    """Print at once; what the terminal cannot show becomes a question mark."""
    encoding = sys.stdout.encoding or "utf-8"
    part = part.translate(VISIBLE).encode(encoding, "replace").decode(encoding)
    print(part, end="", flush=True)
