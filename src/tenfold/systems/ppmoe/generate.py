"""Continue a text one token at a time: temperature, nucleus, and a cache of keys and values."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tenfold.core.seed import generator
from tenfold.data.text.tokens import Tokenizer

from .config import PredictOptions
from .model import Cache, Gpt


@torch.no_grad()
def stream(
    model: Gpt, prompt: Int64[Tensor, " time"], options: PredictOptions, sample: int = 0
) -> Iterator[int]:
    """Ids of `options.tokens` tokens that follow the prompt, each as soon as it is drawn.

    The model is put in eval mode. The same (seed, sample) give the same tokens. Of a prompt longer
    than seq - 1 tokens the end is read. Raises ValueError for an empty prompt, and for weights
    that give no finite logits.
    """
    if not len(prompt):
        raise ValueError("the prompt is empty; give a text to continue, a single letter will do")
    model.eval()
    seq, device = model.cfg.seq, next(model.parameters()).device
    draw = generator(options.seed, "text", sample)
    seen = prompt[-max(seq - 1, 1) :].tolist()
    fresh, cache = seen, Cache({})
    for _ in range(options.tokens):
        logits = model(torch.tensor([fresh], device=device), cache)[0, -1]
        cache.length += len(fresh)
        token = pick(logits, options, draw)
        yield token
        seen.append(token)
        fresh = [token]
        if cache.length == seq:
            # There is no position seq to give the token, nor has the model ever seen one (rotary
            # ones go on, but it was not trained there). Keys depend on their positions and on what
            # was before them, so the window cannot just lose its first token: it is read again.
            # Keeping half of it makes that rare: once in seq / 2 tokens, not at every one.
            seen = fresh = seen[-max(seq // 2, 1) :]
            cache = Cache({})


def pick(logits: Float[Tensor, " vocab"], options: PredictOptions, draw: torch.Generator) -> int:
    """The likeliest token, or one drawn from the nucleus (Holtzman et al. 2020, sec. 3.1)."""
    logits = logits.detach().cpu().double()
    if not logits.isfinite().all():
        raise ValueError("the weights give logits that are not finite; train again or copy anew")
    if options.temperature == 0:
        return int(logits.argmax())
    # the largest is subtracted first: a tiny temperature must not overflow
    probs = ((logits - logits.max()) / options.temperature).softmax(0)
    probs, order = probs.sort(descending=True, stable=True)
    total = probs.cumsum(0)
    # the fewest tokens that reach top_p, and at least one
    nucleus = total[: int(torch.searchsorted(total, options.top_p)) + 1]
    point = torch.rand((), generator=draw, dtype=torch.float64) * nucleus[-1]
    place = int(torch.searchsorted(nucleus, point, right=True))
    return int(order[min(place, len(nucleus) - 1)])  # the product may round up to the end


def text_of(ids: Iterator[int], tokenizer: Tokenizer) -> Iterator[str]:
    """The text of a stream of ids, as soon as its characters are whole.

    A token may end inside a UTF-8 character: those bytes wait for the next. Bytes that never
    become a character are shown as U+FFFD.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in ids:
        text = decoder.decode(tokenizer.decode([token]))
        if text:
            yield text
    rest = decoder.decode(b"", final=True)
    if rest:
        yield rest
