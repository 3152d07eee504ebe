"""Configuration of PPMoE; what the paper leaves open is marked (ours)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tenfold.core.config import require
from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

MAX_TOKENS = 1_000_000
MAX_SAMPLES = 100


@dataclass(frozen=True)
class Model:
    """A GPT whose every n-th feed-forward layer is a mixture of experts (paper sec. 3)."""

    kind: Literal["moe", "dense"] = "moe"
    """moe, or dense: the same backbone with one feed-forward network everywhere."""
    layers: int = 24
    """Transformer blocks, L (GPT-3 Medium)."""
    hidden: int = 1024
    """Width, h."""
    heads: int = 16
    """Attention heads."""
    ffn: int = 0
    """Inner width of a feed-forward network, f; 0 is 4h."""
    seq: int = 2048
    """Tokens of a sequence, s."""
    vocab: int = 0
    """Tokens of the vocabulary, V; 0 takes the tokenizer's."""
    experts: int = 64
    """Experts of a mixture layer, E (paper sec. 4)."""
    top_k: int = 1
    """Experts a token, k (paper: top-1)."""
    moe_every: int = 2
    """Every how many blocks one has experts; 2: blocks 1, 3, 5 (it gives the paper's sizes)."""
    moe_at: tuple[int, ...] = ()
    """The blocks with experts by number, instead of moe_every. (ours)"""
    activation: Literal["erf", "tanh"] = "erf"
    """GELU, exact or by tanh. (ours)"""
    positions: Literal["learned", "rotary"] = "learned"
    """Position embedding, or rotation of queries and keys. (ours)"""
    tied: bool = True
    """The head uses the token embedding's weights. (ours)"""
    dropout: float = 0.0
    """Dropout of what attention and feed-forward add. (ours)"""
    norm_topk: bool = False
    """Divide the k gate weights by their sum. (ours)"""
    capacity_factor: float = 0.0
    """Places an expert has, as a factor on a fair share; 0 drops no token. (ours)"""
    min_capacity: int = 1
    """Fewest places of an expert. (ours)"""
    priority: Literal["position", "prob"] = "position"
    """Priority for places: first choices in token order (GShard), or the largest probability."""
    balance_weight: float = 0.01
    """Weight of the load-balance loss. (ours: Switch)"""
    z_weight: float = 0.001
    """Weight of the router z-loss. (ours: ST-MoE)"""
    bias_rate: float = 0.0
    """Step of the loss-free balancing bias, added only for choosing experts; 0 is off. (ours)"""
    recompute: bool = False
    """Activation checkpointing: keep only the input of each block for the backward pass."""

    def __post_init__(self) -> None:
        require(self, "model.", "[1, inf)", "layers", "hidden", "heads", "seq", "experts")
        require(self, "model.", "[1, inf)", "top_k", "moe_every", "min_capacity")
        require(self, "model.", "[0, inf)", "ffn", "vocab", "capacity_factor", "balance_weight")
        require(self, "model.", "[0, inf)", "z_weight", "bias_rate")
        if self.hidden % self.heads:
            raise ValueError(
                f"model.hidden {self.hidden} is not divisible by model.heads {self.heads}"
            )
        if self.positions == "rotary" and self.hidden // self.heads % 2:
            raise ValueError(
                f"rotary positions need an even head size, got {self.hidden // self.heads}"
            )
        if self.top_k > self.experts:
            raise ValueError(f"model.top_k {self.top_k} is more than model.experts {self.experts}")
        if list(self.moe_at) != sorted({i for i in self.moe_at if 0 <= i < self.layers}):
            raise ValueError(
                f"model.moe_at {self.moe_at} must be increasing block numbers below model.layers "
                f"{self.layers}"
            )
        require(self, "model.", "[0, 1)", "dropout")

    @property
    def inner(self) -> int:
        """Inner width of a feed-forward network."""
        return self.ffn or 4 * self.hidden

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Indices of the blocks with experts: the last of every `moe_every`."""
        if self.kind == "dense":
            return ()
        if self.moe_at:
            return self.moe_at
        return tuple(i for i in range(self.layers) if i % self.moe_every == self.moe_every - 1)


Schedule = Literal["1f1b", "gpipe", "interleaved", "looped-bfs", "zero-bubble", "zbv", "dualpipev"]


@dataclass(frozen=True)
class Layout:
    """Layout of the model on the processes; the data-parallel size is what remains of the world."""

    pp: int = 1
    """Pipeline stages, P: processes the layers are divided among."""
    tp: int = 1
    """Tensor-parallel size, T: processes that share each layer, and its experts."""
    schedule: Schedule = "1f1b"
    """Order of the micro-batches' forward and backward passes where pp > 1."""
    virtual: int = 2
    """Stages a process holds, for the schedules interleaved, looped-bfs and zero-bubble."""
    dispatch: Literal["slice", "alltoall", "alltoall-copies"] = "slice"
    """slice: PPMoE, experts over tp, tokens picked by index. alltoall: DPMoE, experts over dp x tp,
    each tensor rank sends its share of the tokens; alltoall-copies: each sends all of them, as
    DeepSpeed did before it dropped duplicates."""
    sync: Literal["scores", "params"] = "scores"
    """Router gradient: scores sums that of the gate weights in each layer (ours); params sums the
    router's parameters once a step, as the paper does."""
    zero: bool = False
    """ZeRO-1: each data-parallel process keeps the optimiser state of its share of parameters."""
    timeout: float = 120.0
    """Seconds after which a collective that does not return is reported and the job stopped."""

    def __post_init__(self) -> None:
        require(self, "layout.", "[1, inf)", "pp", "tp", "virtual")
        require(self, "layout.", "(0, inf)", "timeout")

    @property
    def stages_per_process(self) -> int:
        """Model parts that one process of a pipeline holds."""
        if self.schedule in ("1f1b", "gpipe"):
            return 1
        return 2 if self.is_v_shaped else self.virtual

    @property
    def is_v_shaped(self) -> bool:
        """True if process r holds stage r and its mirror image, so the first holds both ends."""
        return self.schedule in ("zbv", "dualpipev")


@dataclass(frozen=True)
class Data:
    """Text of a run, and its tokenizer."""

    name: Literal["textmix", "files", "python"] = "textmix"
    """textmix: four domains; files: your own text; python: sources of the standard library."""
    path: str = ""
    """Folder of the set, or your text file or folder of text files (sets name to files)."""
    field: str = "text"
    """Field of the records that holds the text, in files of lines of JSON (.jsonl)."""
    weights: str = ""
    """Share of the domains in what is trained on: bytes, equal, or numbers, as in "prose=2,code=1"
    (domains that are not named: 0). Empty: by bytes for your own text, equal for the others."""
    tokenizer: Literal["byte", "bpe"] = "byte"
    """A token is a byte, or a byte pair encoding learned from the training text."""
    bpe_vocab: int = 2048
    """Vocabulary of the byte pair encoding."""
    bpe: str = ""
    """The learned encoding (JSON); filled in from the data."""
    eval_windows: int = 0
    """Windows of each domain that evaluation reads; 0 reads all."""

    def __post_init__(self) -> None:
        require(self, "data.", "[257, 65536]", "bpe_vocab")
        require(self, "data.", "[0, inf)", "eval_windows")


@dataclass(frozen=True)
class Config:
    """Everything a run depends on."""

    model: Model
    layout: Layout
    data: Data
    optim: Optim
    steps: int
    """Optimiser steps."""
    batch: int = 16
    """Sequences of a micro-batch, over all data-parallel processes; loop.accumulate is M."""
    seed: int = 0
    """Seed of weights and batches."""
    start: str = ""
    """Weights that training starts from: a run, or its weights."""
    allow_missing: bool = False
    """Start although some tensors are missing in `start`, unused, or of another shape."""
    loop: Loop = Loop()
    """Settings of the training loop."""

    def __post_init__(self) -> None:
        require(self, "", "[1, inf)", "steps", "batch")


@dataclass(frozen=True)
class PredictOptions:
    """Options of `predict`, which continues a text."""

    tokens: int = 300
    """Tokens to write."""
    temperature: float = 0.8
    """Divides the logits: below 1 is more careful, above 1 more daring, 0 always the likeliest."""
    top_p: float = 0.95
    """Draw only from the likeliest tokens that together have this probability; 1 is all."""
    samples: int = 1
    """Continuations to write, each in a file of its own."""
    seed: int = 0
    """The same seed gives the same text."""
    quiet: bool = False
    """Do not show the text in the terminal while it is written."""

    def __post_init__(self) -> None:
        require(self, "", f"[1, {MAX_TOKENS}]", "tokens")
        require(self, "", f"[1, {MAX_SAMPLES}]", "samples")
        require(self, "", "[0, inf)", "temperature")
        require(self, "", "[0, 1]", "top_p")
