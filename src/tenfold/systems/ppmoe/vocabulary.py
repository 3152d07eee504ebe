"""The vocabulary cut among tensor ranks: embedding and loss, without whole logits anywhere.

As Megatron-LM does it (Shoeybi et al. 2019, sec. 3): each rank has the rows of some tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .parallel import Grid, Group


def own_tokens(vocab: int, group: Group) -> range:
    """Tokens whose rows a rank holds; the last ranks may have fewer."""
    each = -(-vocab // group.size)
    start = min(group.rank * each, vocab)
    return range(start, min(start + each, vocab))


class Tokens(nn.Embedding):
    """The embedding of tokens, of which this process has those of `own_tokens`."""

    def __init__(self, vocab: int, hidden: int, grid: Grid, group: Group) -> None:
        self.grid, self.vocab, self.own = grid, vocab, own_tokens(vocab, group)
        super().__init__(len(self.own), hidden)

    def forward(
        self, tokens: Int64[Tensor, "batch time"]
    ) -> Float[Tensor, "batch own_time hidden"]:
        """Rows of the tokens; of a rank's part of the sequence where that is split."""
        if len(self.own) == self.vocab:
            try:
                return super().forward(tokens)
            except IndexError as error:
                raise self._unknown(tokens) from error
        if tokens.device.type == "cpu":  # what no rank has would be a row of zeros
            low, high = tokens.aminmax()
            if low < 0 or high >= self.vocab:
                raise self._unknown(tokens)
        place = tokens - self.own.start
        elsewhere = (place < 0) | (place >= len(self.own))
        found = super().forward(place.masked_fill(elsewhere, 0))
        return self.grid.leave(found.masked_fill(elsewhere.unsqueeze(-1), 0.0))

    def _unknown(self, tokens: Tensor) -> ValueError:
        return ValueError(
            f"token ids are from {int(tokens.min())} to {int(tokens.max())}, but the vocabulary is "
            f"0 to {self.vocab - 1}; encode with the tokenizer of this model"
        )


class _CrossEntropy(torch.autograd.Function):
    """log(sum(exp(logits))) - logit of the target, of logits cut among ranks.

    Forward exchanges three numbers a token; backward none: each rank has the gradients of its own.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, start: int, group: Group) -> Tensor:
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        top = group.largest_(wide.amax(1))
        shifted = wide - top[:, None]
        place = target - start
        here = (place >= 0) & (place < wide.shape[1])
        place = place.masked_fill(~here, 0)
        chosen = shifted.gather(1, place[:, None])[:, 0].masked_fill(~here, 0.0)
        shares = shifted.exp_()
        total, chosen = group.sum_(torch.stack([shares.sum(1), chosen]))
        ctx.save_for_backward(shares.div_(total[:, None]), place, here)
        ctx.kind = logits.dtype
        return total.log() - chosen

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        shares, place, here = ctx.saved_tensors
        back = shares * grad[:, None]
        back.scatter_add_(1, place[:, None], -(grad * here)[:, None])
        return back.to(ctx.kind), None, None, None


def token_losses(
    logits: Float[Tensor, "token own"], target: Int64[Tensor, " token"], vocab: int, group: Group
) -> Float[Tensor, " token"]:
    """Cross-entropy in nats of each token, in float32 or better.

    Args:
        logits: Of the vocabulary's part that this rank of the group has.
        target: Tokens, the same on all ranks.
        vocab: Tokens of the vocabulary.
        group: Ranks that share it; alone: the logits are whole.
    """
    if group.size == 1:
        wide = torch.promote_types(logits.dtype, torch.float32)
        return F.cross_entropy(logits.to(wide), target, reduction="none")
    losses: Tensor = _CrossEntropy.apply(logits, target, own_tokens(vocab, group).start, group)
    return losses
