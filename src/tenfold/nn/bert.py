"""BERT: a transformer over word pieces.

Devlin et al. 2019, written anew; names of parameters are those of transformers (BertModel).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from .dropout import dropout

EPS = 1e-12
"""Of every LayerNorm."""
Tokens = Float[Tensor, "batch token dim"]


@dataclass(frozen=True)
class BertShape:
    """Everything that decides which tensors the network has, and how they are used."""

    vocabulary: int
    dim: int
    depth: int
    heads: int
    hidden: int
    """Hidden channels of each MLP."""
    positions: int = 512
    types: int = 2
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.heads < 1 or self.dim % self.heads:
            raise ValueError(
                f"a transformer of {self.dim} channels cannot have {self.heads} heads; give a "
                "divisor"
            )


class Embeddings(nn.Module):
    """Word, place and kind of each token."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(shape.vocabulary, shape.dim)
        self.position_embeddings = nn.Embedding(shape.positions, shape.dim)
        self.token_type_embeddings = nn.Embedding(shape.types, shape.dim)
        self.LayerNorm = nn.LayerNorm(shape.dim, eps=EPS)
        self.dropout = shape.dropout

    def forward(self, words: Int64[Tensor, "batch token"]) -> Tokens:
        """Normalised sums; all tokens are of the first kind."""
        places = self.position_embeddings.weight[: words.shape[1]]
        x = self.word_embeddings(words) + places + self.token_type_embeddings.weight[0]
        return dropout(self.LayerNorm(x), self.dropout, self.training)


class Projections(nn.Module):
    """Queries, keys and values."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))


class Output(nn.Module):
    """A projection that is added and normalised."""

    def __init__(self, channels: int, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(channels, shape.dim)
        self.LayerNorm = nn.LayerNorm(shape.dim, eps=EPS)
        self.dropout = shape.dropout

    def forward(self, x: Float[Tensor, "batch token channel"], added: Tokens) -> Tokens:
        """Norm of the sum."""
        x = dropout(self.dense(x), self.dropout, self.training)
        return self.LayerNorm(x + added)


class Attention(nn.Module):
    """Self-attention and its output."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.heads, self.dropout = shape.heads, shape.dropout
        self.self = Projections(shape.dim)
        self.output = Output(shape.dim, shape)

    def forward(self, x: Tokens, is_token: Bool[Tensor, "batch token"]) -> Tokens:
        """Mix tokens; none attends to one of padding."""
        query, key, value = (
            project(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.self.query, self.self.key, self.self.value)
        )
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=is_token[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )  # fmt: skip
        return self.output(mixed.transpose(1, 2).flatten(2), x)


class Intermediate(nn.Module):
    """The first half of the MLP."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.dense = nn.Linear(shape.dim, shape.hidden)

    def forward(self, x: Tokens) -> Float[Tensor, "batch token hidden"]:
        """GELU."""
        return F.gelu(self.dense(x))


class Layer(nn.Module):
    """Attention and MLP, each with a norm behind the sum."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.attention = Attention(shape)
        self.intermediate = Intermediate(shape)
        self.output = Output(shape.hidden, shape)

    def forward(self, x: Tokens, is_token: Bool[Tensor, "batch token"]) -> Tokens:
        """Two steps."""
        x = self.attention(x, is_token)
        return self.output(self.intermediate(x), x)


class Encoder(nn.Module):
    """The layers."""

    def __init__(self, shape: BertShape) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Layer(shape) for _ in range(shape.depth)])


class Pooler(nn.Module):
    """The vector of a text by BERT's own training."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(dim, dim)

    def forward(self, tokens: Tokens) -> Float[Tensor, "batch dim"]:
        """Tanh of the projected first token."""
        return self.dense(tokens[:, 0]).tanh()


class Bert(nn.Module):
    """Word pieces to tokens; the first stands for the whole text."""

    def __init__(self, shape: BertShape, pooler: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = Embeddings(shape)
        self.encoder = Encoder(shape)
        if pooler:
            self.pooler = Pooler(shape.dim)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(
        self, words: Int64[Tensor, "batch token"], is_token: Bool[Tensor, "batch token"]
    ) -> Tokens:
        """Tokens behind the last layer.

        Args:
            words: Numbers of word pieces.
            is_token: False for padding; each text has a token that is none.
        """
        if words.shape[1] > self.shape.positions:
            raise ValueError(
                f"a text of {words.shape[1]} word pieces is longer than the {self.shape.positions} "
                "that this BERT has places for; cut it"
            )
        x = self.embeddings(words)
        for layer in self.encoder.layer:
            x = layer(x, is_token)
        return x
