"""The baselines in SPGSN's tables: a plain DCT-GCN, and an MLP without a graph."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tenfold.nn.dropout import dropout
from tenfold.nn.norm import BatchNorm

from .config import Model
from .scattering import GraphConv, per_node, tanh


class GcnBlock(nn.Module):
    """Two times [graph convolution, BatchNorm, tanh, dropout], plus the input."""

    def __init__(self, num_nodes: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.convs = nn.ModuleList(GraphConv(num_nodes, width, width) for _ in range(2))
        self.norms = nn.ModuleList(BatchNorm(num_nodes * width) for _ in range(2))

    def forward(self, x: Float[Tensor, "batch node width"]) -> Float[Tensor, "batch node width"]:
        """One residual block."""
        y = x
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = dropout(tanh(per_node(norm, conv(y))), self.dropout, self.training)
        return x + y


class DctGcn(nn.Module):
    """The baseline that SPGSN grew from: a plain DCT-GCN (LearnTrajDep), same depth and width."""

    def __init__(self, cfg: Model, num_nodes: int, num_coeffs: int) -> None:
        super().__init__()
        self.cfg, self.dropout = cfg, cfg.dropout
        self.embed = GraphConv(num_nodes, num_coeffs, cfg.width)
        self.embed_norm = BatchNorm(num_nodes * cfg.width)
        self.blocks = nn.ModuleList(
            GcnBlock(num_nodes, cfg.width, cfg.dropout) for _ in range(cfg.num_blocks)
        )
        self.readout = GraphConv(num_nodes, cfg.width, num_coeffs)

    def forward(
        self, coeffs: Float[Tensor, "batch node coeff"], masks: None = None
    ) -> Float[Tensor, "batch node coeff"]:
        """Predict; it has no random edges, `masks` is there to be called like the others."""
        y = tanh(per_node(self.embed_norm, self.embed(coeffs)))
        y = dropout(y, self.cfg.dropout, self.training)
        for block in self.blocks:
            y = block(y)
        return torch.add(coeffs, self.readout(y), alpha=self.cfg.readout_gain)


class MotionMlp(nn.Module):
    """A baseline without a graph (after siMLPe): linear maps over nodes and over coefficients.

    Ours differs: `width` features take the place of the nodes, and the last map starts at zero, so
    that the first prediction repeats the last pose. Inside, lengths are in metres as in siMLPe, so
    that what the normalised blocks add counts beside the input.
    """

    unit = 1000.0
    """Millimetres a unit of length inside the network."""

    def __init__(self, cfg: Model, num_nodes: int, num_coeffs: int) -> None:
        super().__init__()
        self.embed = nn.Linear(num_nodes, cfg.width)
        self.mixes = nn.ModuleList(nn.Linear(num_coeffs, num_coeffs) for _ in range(cfg.num_blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(cfg.width) for _ in range(cfg.num_blocks))
        self.readout = nn.Linear(cfg.width, num_nodes)
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)

    def forward(
        self, coeffs: Float[Tensor, "batch node coeff"], masks: None = None
    ) -> Float[Tensor, "batch node coeff"]:
        """Predict; it has no edges, `masks` is there to be called like the others."""
        y = self.embed(coeffs.transpose(1, 2) / self.unit)  # batch, coeff, width
        for mix, norm in zip(self.mixes, self.norms, strict=True):
            y = y + norm(mix(y.transpose(1, 2)).transpose(1, 2))
        return coeffs + self.unit * self.readout(y).transpose(1, 2)
