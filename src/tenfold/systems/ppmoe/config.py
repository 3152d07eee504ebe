"""Configuration of PPMoE; what the paper leaves open is marked (ours)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tenfold.core.config import require
from tenfold.core.loop import Loop
from tenfold.core.optim import Optim

from .widths import Widths

MAX_TOKENS = 1_000_000
MAX_SAMPLES = 100


@dataclass(frozen=True)
class Model(Widths):
    """A GPT whose every n-th feed-forward layer is a mixture of experts (paper sec. 3)."""

    kind: Literal["moe", "dense"] = "moe"
    """moe, or dense: the same backbone with one feed-forward network everywhere."""
    layers: int = 24
    """Transformer blocks, L (GPT-3 Medium)."""
    hidden: int = 1024
    """Width, h."""
    heads: int = 16
    """Attention heads."""
    kv_heads: int = 0
    """Heads of keys and values, which groups of queries share (GQA); 0: as many as heads."""
    head_size: int = 0
    """Width of a head; 0 is hidden / heads."""
    ffn: int = 0
    """Inner width of a feed-forward network, f; 0 is 4h."""
    expert_ffn: int = 0
    """Inner width of an expert; 0 is that of a feed-forward network."""
    shared: int = 0
    """Inner width of an expert that every token passes beside those it chose; 0: none."""
    shared_gate: bool = False
    """A gate of the shared expert, a sigmoid (Qwen2-MoE)."""
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
    activation: Literal["erf", "tanh", "swiglu"] = "erf"
    """GELU, exact or by tanh (ours), or SwiGLU: two products inside, silu(a) * b (Shazeer 2020)."""
    norm: Literal["layer", "rms"] = "layer"
    """LayerNorm (ours), or RMSNorm, which has no mean and no bias."""
    norm_eps: float = 1e-5
    """Added to the variance that a norm divides by."""
    qk_norm: bool = False
    """RMSNorm of each head's queries and keys (Qwen3)."""
    bias: Literal["all", "qkv", "none"] = "all"
    """Biases of linear maps: of all, of queries, keys and values alone, or of none."""
    positions: Literal["learned", "rotary"] = "learned"
    """Position embedding, or rotation of queries and keys. (ours)"""
    rope_base: float = 10_000.0
    """Base of the rotations' wavelengths."""
    tied: bool = True
    """The head uses the token embedding's weights. (ours)"""
    dropout: float = 0.0
    """Dropout of what attention and feed-forward add. (ours)"""
    norm_topk: bool = False
    """Divide the k gate weights by their sum. (ours)"""
    capacity_factor: float = 0.0
    """Places an expert has in training, as a factor on a fair share; 0 drops no token. (ours)"""
    drops_in_evaluation: bool = False
    """A capacity drops tokens where a text is measured or continued, too, as in GShard's code; what
    it gives a text then depends on what else is in the batch."""
    min_capacity: int = 1
    """Fewest places of an expert. (ours)"""
    priority: Literal["position", "prob"] = "position"
    """Priority for places: first choices in token order (GShard), or the largest probability."""
    balance_weight: float = 0.01
    """Weight of the load-balance loss. (ours: Switch)"""
    balance_scope: Literal["micro", "global"] = "micro"
    """Tokens over which loads are counted for that loss: a replica's micro-batch, or that of all
    replicas, so that several give the gradients of one with as many rows (Qiu et al. 2025)."""
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
        require(self, "model.", "[0, inf)", "kv_heads", "head_size", "expert_ffn", "shared")
        require(self, "model.", "(0, inf)", "norm_eps", "rope_base")
        self.require_whole_heads(self.positions == "rotary", "model.{}")
        if (self.activation == "swiglu") == (self.bias == "all"):
            raise ValueError(
                f"model.activation {self.activation} with model.bias {self.bias}: networks of GELU "
                "have biases here (all), those of SwiGLU have none (qkv or none)"
            )
        if self.shared_gate and not self.shared:
            raise ValueError("model.shared_gate needs a shared expert; give model.shared its width")
        if self.top_k > self.experts:
            raise ValueError(f"model.top_k {self.top_k} is more than model.experts {self.experts}")
        if list(self.moe_at) != sorted({i for i in self.moe_at if 0 <= i < self.layers}):
            raise ValueError(
                f"model.moe_at {self.moe_at} must be increasing block numbers below model.layers "
                f"{self.layers}"
            )
        require(self, "model.", "[0, 1)", "dropout")

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
    fsdp: bool = False
    """Each data-parallel process keeps its share of weights, gradients and optimiser state alone
    (torch's FSDP2); a block's weights are gathered while it is computed, for each micro-batch."""
    vocab_parallel: bool = True
    """Tensor ranks share the vocabulary: embedding, head and loss, of which each has its tokens'
    part, so that logits are never whole (Megatron-LM); else each computes all of it."""
    sequence: bool = False
    """Sequence parallelism: norms and the residual stream are split along the sequence among tensor
    ranks, gathered before each product and scattered after it (Korthikanti et al. 2022)."""
    bucket_mb: float = 25.0
    """MiB of gradients that replicas sum at a time, while backward still computes others."""
    timeout: float = 120.0
    """Seconds after which a collective that does not return is reported and the job stopped."""

    def __post_init__(self) -> None:
        require(self, "layout.", "[1, inf)", "pp", "tp", "virtual")
        require(self, "layout.", "(0, inf)", "timeout", "bucket_mb")

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

    name: Literal["textmix", "files", "tokens", "python"] = "textmix"
    """textmix: four domains; files: your own text; tokens: a folder that `tenfold data tokenise`
    made of it; python: sources of the standard library."""
    path: str = ""
    """Folder of the set, or your text file or folder of text files or of tokens (sets name)."""
    field: str = "text"
    """Field of the records that holds the text, in files of lines of JSON (.jsonl)."""
    weights: str = ""
    """Share of the domains in what is trained on: bytes, equal, or numbers, as in "prose=2,code=1"
    (domains that are not named: 0). Empty: by bytes for your own text, equal for the others."""
    tokenizer: Literal["byte", "bpe", "file"] = "byte"
    """A token is a byte; or of a byte pair encoding learned from the training text; or of a
    tokenizer.json."""
    tokenizer_file: str = ""
    """The tokenizer.json, of the package tokenizers (sets tokenizer to file)."""
    bpe_vocab: int = 2048
    """Vocabulary of the byte pair encoding."""
    bpe: str = ""
    """The learned encoding, or the tokenizer.json (JSON); filled in."""
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
