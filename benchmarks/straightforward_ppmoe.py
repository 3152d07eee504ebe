"""A GPT with experts as its equations read: each expert by itself, on the tokens that chose it.

What `benchmarks/ppmoe.py` compares with, besides the dense backbone. Plain modules and autograd, no
sorting of tokens, no operation written out; experts are modules of their own, so that autograd
makes no gradient of all experts for each one. Weights are those of the mixture model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)

    def forward(self, x):
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(hidden, inner), nn.Linear(inner, hidden)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Mixture(nn.Module):
    def __init__(self, hidden: int, inner: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.gate = nn.Linear(hidden, experts, bias=False)
        self.experts = nn.ModuleList(FeedForward(hidden, inner) for _ in range(experts))

    def forward(self, x):
        """The mixture, its balance loss and its z loss."""
        with torch.autocast(x.device.type, enabled=False):
            logits = self.gate(x.float())
        probs = logits.softmax(1)
        weights, chosen = probs.topk(self.top_k, 1)
        y = torch.zeros_like(x)
        for e, expert in enumerate(self.experts):
            token, choice = (chosen == e).nonzero(as_tuple=True)
            if len(token):
                made = expert(x[token]) * weights[token, choice].unsqueeze(1)
                y = y.index_add(0, token, made.to(y.dtype))
        share = torch.bincount(chosen.flatten(), minlength=len(self.experts)) / chosen.numel()
        balance = len(self.experts) * (share * probs.mean(0)).sum()
        return y, balance, logits.logsumexp(1).square().mean()


class Block(nn.Module):
    def __init__(self, hidden: int, heads: int, inner: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.attn = Attention(hidden, heads)
        if experts:
            self.moe = Mixture(hidden, inner, experts, top_k)
        else:
            self.ffn = FeedForward(hidden, inner)

    def forward(self, x):
        x = x + self.attn(self.ln1(x))
        inner = self.ln2(x)
        if hasattr(self, "moe"):
            added, balance, z = self.moe(inner.flatten(0, 1))
            return x + added.view_as(x), balance, z
        return x + self.ffn(inner), 0.0, 0.0


class Straightforward(nn.Module):
    """The configuration is the mixture model's (`tenfold.systems.ppmoe.config.Model`)."""

    def __init__(self, cfg) -> None:
        super().__init__()
        self.cfg = cfg
        self.tok = nn.Embedding(cfg.vocab, cfg.hidden)
        self.pos = nn.Embedding(cfg.seq, cfg.hidden)
        self.blocks = nn.ModuleList(
            Block(
                cfg.hidden, cfg.heads, cfg.inner, cfg.experts if i in cfg.moe_layers else 0,
                cfg.top_k,
            )
            for i in range(cfg.layers)
        )  # fmt: skip
        self.ln_f = nn.LayerNorm(cfg.hidden)

    def forward(self, tokens):
        """Logits, and the weighted sum of the balance and z losses."""
        x = self.tok(tokens) + self.pos.weight[: tokens.shape[1]]
        beside = 0.0
        for block in self.blocks:
            x, balance, z = block(x)
            beside = beside + self.cfg.balance_weight * balance + self.cfg.z_weight * z
        return F.linear(self.ln_f(x), self.tok.weight), beside

    def train_step(self, tokens) -> None:
        """Forward and backward: mean cross-entropy of the next token, balance and z losses."""
        logits, beside = self(tokens[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
        (loss + beside).backward()


def converted(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The mixture model's weights, or gradients, by the names above."""
    found = {}
    for key, value in state.items():
        key = key.replace("embed.tok", "tok").replace("embed.pos", "pos")
        key = key.replace("layers.", "blocks.")
        if ".experts." in key:
            head, _, tail = key.partition(".experts.")
            name = tail.replace("_", ".")  # fc1_weight: a tensor of all experts
            found |= {f"{head}.experts.{e}.{name}": one for e, one in enumerate(value)}
        else:
            found[key] = value
    return found
