"""The page that shows a text, every token coloured by the expert that took it."""

from __future__ import annotations

import codecs
import html
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tenfold.data.text.tokens import Tokenizer

LIGHT = "#cfe4fa #ffd9b8 #c9ebd3 #f6cfe4 #f4e6a2 #d9d2f5 #bdeaf0 #f9cdc6 #dfe8b4 #e3d3c3".split()
DARK = "#1d4a73 #7a4312 #1d5a38 #6e2c54 #665808 #473a86 #125963 #7c2f25 #4d5a17 #5a4432".split()
# Control characters act on a terminal, and some turn the reading direction: show, do not obey.
VISIBLE = {c: 0x2400 + c for c in range(32) if c not in (9, 10)} | {127: 0x2421}
VISIBLE |= dict.fromkeys(
    [*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD
)


@dataclass(frozen=True)
class LayerRouting:
    """A mixture layer's decisions on one text."""

    index: int
    """Number of the block."""
    probs: Float[Tensor, "token expert"]
    experts: Int64[Tensor, "token choice"]


@dataclass(frozen=True)
class RoutedText:
    """The tokens of a text, and who takes them in some of the model's mixture blocks."""

    ids: Int64[Tensor, " token"]
    written: int
    """Tokens at the end that the model wrote."""
    layers: tuple[LayerRouting, ...]
    num_mixtures: int
    """Mixture blocks of the model."""


def routing_page(text: RoutedText, tokenizer: Tokenizer) -> str:
    """Make a self-contained HTML page: the text, every token coloured by its expert.

    A mixture block is a section. With top-k the first choice decides the colour.
    """
    pieces = _pieces(tokenizer, text.ids.tolist())
    sections = "".join(_section(layer, pieces, text.written) for layer in text.layers)
    theirs = (
        f" The frame marks the last {text.written}, written by the model." if text.written else ""
    )
    first = text.layers[0]
    return PAGE.format(
        light="".join(f"--e{i}:{c};" for i, c in enumerate(LIGHT)),
        dark="".join(f"--e{i}:{c};" for i, c in enumerate(DARK)),
        classes="".join(f".e{i}{{background:var(--e{i})}}" for i in range(len(LIGHT))),
        intro=f"{len(text.ids)} tokens, {first.probs.shape[1]} experts in each of "
        f"{text.num_mixtures} mixture blocks, top-{first.experts.shape[1]}.{theirs} Colours belong "
        "to one block: expert 3 of one has nothing to do with expert 3 of another; shares are of "
        "the tokens shown. Hold the pointer over a token for its probabilities.",
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


def _section(layer: LayerRouting, pieces: list[tuple[str, str]], written: int) -> str:
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


def _odds(layer: LayerRouting, place: int) -> str:
    """Probabilities of a token's experts, and of the best one that it did not get."""
    probs, chosen = layer.probs[place], layer.experts[place].tolist()
    others = [e for e in probs.argsort(descending=True, stable=True).tolist() if e not in chosen]
    words = [f"expert {e} {float(probs[e]):.0%}" for e in chosen]
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
