"""The model as plain tensors in and out: shapes that do not depend on where tokens go."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.core.capabilities import Export
from tenfold.core.seed import generator

from .config import Model
from .dispatch import MoE
from .model import Gpt


class DenseMoE(nn.Module):
    """Every expert on every token, weighted by the gates: same numbers, E / k times the work."""

    def __init__(self, moe: MoE) -> None:
        super().__init__()
        self.cfg, self.gate, self.experts = moe.cfg, moe.gate, moe.experts

    def forward(
        self, inner: Float[Tensor, "batch time hidden"], scale: float | Tensor = 1.0
    ) -> tuple[Float[Tensor, "batch time hidden"], None]:
        """The mixture of all experts with the weights of the k chosen, 0 for the others."""
        x = inner.flatten(0, 1)
        probs = (x @ self.gate.weight.t()).softmax(1)
        score = probs if self.gate.bias is None else probs + self.gate.bias
        chosen = score.topk(self.cfg.top_k, 1).indices
        mask = F.one_hot(chosen, self.cfg.experts).sum(1).to(probs.dtype)
        weights = probs * mask
        if self.cfg.norm_topk and self.cfg.top_k > 1:
            weights = weights / weights.sum(1, keepdim=True)
        e = self.experts
        if e.is_gated:
            gate, up = torch.einsum("th,efh->etf", x, e.gate_up_weight).chunk(2, 2)
            y = torch.einsum("etf,ehf->eth", F.silu(gate) * up, e.fc2_weight)
        else:
            before = torch.einsum("th,efh->etf", x, e.fc1_weight) + e.fc1_bias.unsqueeze(1)
            after = F.gelu(before, approximate=e.approximate)
            y = torch.einsum("etf,ehf->eth", after, e.fc2_weight) + e.fc2_bias.unsqueeze(1)
        return torch.einsum("eth,te->th", y, weights).view_as(inner), None


def exportable(model: nn.Module, cfg: Model) -> Export:
    """Tokens (batch, seq) to logits (batch, seq, vocabulary).

    Raises ValueError where a capacity drops tokens in evaluation: who keeps a place then depends on
    the other rows of the batch.
    """
    if cfg.capacity_factor and cfg.moe_layers and cfg.drops_in_evaluation:
        raise ValueError(
            "model.drops_in_evaluation drops tokens by what else is in the batch and cannot be "
            "exported; train without it"
        )
    module = copy.deepcopy(model).cpu().float().eval()
    assert isinstance(module, Gpt)
    for block in module.blocks():
        if hasattr(block, "moe"):
            block.add_module("moe", DenseMoE(block.moe))
    tokens = torch.randint(0, cfg.vocab, (2, cfg.seq), generator=generator("export"))
    return Export(module, (tokens,), ("tokens",), ("logits",))
