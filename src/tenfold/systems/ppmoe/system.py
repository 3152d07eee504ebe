"""PPMoE as a system: train on any layout, measure bits per byte, sample, claim."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn

from tenfold.core import dist
from tenfold.core.capabilities import Export
from tenfold.core.claim import Claim, Variant
from tenfold.core.optim import decay_groups
from tenfold.core.stage import Backward, Losses, Stage
from tenfold.core.system import DataUsed, Paper, System
from tenfold.data.text.tokens import TokenWindows

from . import data, predict
from .config import Config
from .export import exportable
from .generate import Sampling
from .model import Gpt
from .parallel import Grid, make_grid
from .pipeline import Part, Tally
from .recipes import DENSE, RECIPES, SMALL, TOP2
from .zero import Zero

EVAL_ROWS = 32
VALIDATION_WINDOWS = 32
"""Windows of each domain that validation during training reads, at most."""


class Ppmoe(System[Config]):
    """Pipeline mixture of experts: language models whose experts lie in the tensor group."""

    paper = Paper(
        arxiv="2304.11414",
        title="Pipeline MoE: A Flexible MoE Implementation with Pipeline Parallelism",
        says="Experts in the tensor-parallel group need no all-to-all, so mixtures of experts can "
        "be trained in pipelines like dense models, faster than with experts over data "
        "parallelism.",
        cite="@article{chen2023pipeline,\n"
        "  title={Pipeline MoE: A Flexible MoE Implementation with Pipeline Parallelism},\n"
        "  author={Chen, Xin and Zhang, Hengheng and Gu, Xiaotao and Bi, Kaifeng and Xie, Lingxi "
        "and Tian, Qi},\n  journal={arXiv preprint arXiv:2304.11414},\n  year={2023}\n}",
        code="none was published",
        weights_licence="none were published",
    )
    recipes: ClassVar[dict[str, Config]] = RECIPES
    better: ClassVar[dict[str, str]] = {"bits": "lower"}
    units: ClassVar[dict[str, str]] = {"bits": "bits a byte"}
    headline: list[str] = ["bits/mean/per byte"]
    task = "mixture-of-experts language models: experts in the tensor group, pipelines, a planner"
    accepts = "a UTF-8 text file, plain, .gz or .xz; its end is continued"
    intended = (
        "Research on training mixtures of experts. The small models write text that is wrong and "
        "may repeat what they were trained on. Not for production of text that people rely on."
    )
    resumable: ClassVar[tuple[str, ...]] = (*System.resumable, "layout")
    options = Sampling()

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if not cfg.model.vocab:
            raise ValueError("the configuration has no vocabulary; use Ppmoe.complete(cfg)")
        self.text = data.Text(cfg)
        self.tokenizer = self.text.tokenizer
        if self.tokenizer.vocab != cfg.model.vocab:
            raise ValueError(
                f"model.vocab is {cfg.model.vocab}, but the {cfg.data.tokenizer} tokenizer has "
                f"{self.tokenizer.vocab} tokens; leave model.vocab at 0"
            )
        self.part: Part | None = None
        if dist.current().size == 1:
            self.part = Part(cfg, Grid())
            self.model = self.part.parts[0]
        else:  # each process will hold its part; the whole is put together at the end, on the first
            with torch.device("meta"):
                self.model = Gpt(cfg.model)
        self.bits: dict[str, float] = {}
        """Bits per byte of each domain, of what was evaluated last."""

    @classmethod
    def complete(cls, cfg: Config) -> Config:
        """Choose the text, learn the encoding, take the vocabulary from it."""
        return data.complete(cfg)

    @property
    def corpus(self) -> Any:
        """The text."""
        return self.text.corpus

    def windows(self, split: str) -> TokenWindows:
        """Windows of tokens of a split."""
        return self.text.windows(split)

    # --- training -------------------------------------------------------------------------------

    def stages(self) -> Iterator[Stage]:
        """One stage, on however many processes there are."""
        cfg, world = self.cfg, dist.current()
        grid = make_grid(cfg, world)
        replica = dist.World(grid.dp.rank, grid.dp.size, world.device)
        self.windows("train").draw(1, 0)  # text that is too short is found before anything starts
        part = self.part if self.part is not None else Part(cfg, grid)
        zero = Zero(part) if cfg.layout.zero else None
        last: list[Tally] = []

        def training_step(model: nn.Module, batches: Any, backward: Backward) -> Losses:
            if cfg.model.dropout:  # the same for all tensor ranks, another for each stage
                torch.manual_seed(int(batches[0]["seed"]) + grid.pp.rank)
            last[:] = [part.train_step(batches)]
            return self._account(last[0])

        def after_step(step: int) -> None:
            if zero is not None:
                zero.share()
            if cfg.model.bias_rate:
                part.balance(last[0].counts(), cfg.model.bias_rate)

        yield Stage(
            name="train",
            model=part,
            batches=lambda index: self.text.batch(index, replica),
            steps=cfg.steps,
            optim=cfg.optim,
            groups=zero.groups if zero is not None else decay_groups,
            training_step=training_step,
            after_step=after_step,
            parallel=part.whole,
            validate=lambda module: self._validate(module, replica),
            monitor="bits" if cfg.loop.validate_every else "",
        )
        whole = part.gathered(self.model.state_dict())
        if self.part is None and world.is_first:
            self.model = self.model.to_empty(device="cpu")
            self.model.load_state_dict(whole)

    def _account(self, tally: Tally) -> dict[str, Tensor]:
        """What to log of a step: the loss and its terms, and what the routers did."""
        model, ce = self.cfg.model, tally.ce
        if not model.moe_layers:
            return {"loss": ce}
        balance, z, entropy, dropped, pairs = tally.table[:, :5].unbind(1)
        load = tally.counts()
        return {
            "loss": ce + model.balance_weight * balance.sum() + model.z_weight * z.sum(),
            "loss/ce": ce,
            "loss/balance": balance.sum(),
            "loss/z": z.sum(),
            "router/max load over mean": (load.max(1).values / load.mean(1)).max(),
            "router/dropped": dropped.sum() / pairs.sum(),
            "router/entropy": entropy.mean(),
        }

    def _validate(self, module: nn.Module, replica: dist.World) -> dict[str, float]:
        """Bits per byte of held-out windows, the mean over domains; all processes take part."""
        assert isinstance(module, Part)
        windows = self.windows("validation")
        bits = []
        for domain in windows.domains:
            found = windows.in_order(domain, 0, VALIDATION_WINDOWS)
            rows = -(-len(found.tokens) // replica.size) * replica.size
            # every replica the same number of rows: experts may lie on other replicas
            order = np.arange(rows) % len(found.tokens)
            counts = (np.arange(rows) < len(found.tokens))[:, None] & found.mask[order]
            own = replica.share(rows)
            tokens = torch.from_numpy(found.tokens[order][own]).to(replica.device)
            losses = module.token_losses(tokens).double()
            nats = (losses * torch.from_numpy(counts[own]).to(replica.device)).sum()
            total = float(module.grid.dp.sum_(nats))
            bits.append(total / math.log(2) / float(found.bytes.sum()))
        return {"bits": float(np.mean(bits))}

    # --- results --------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        """Bits per byte of each domain and their mean; every byte but the first predicted once."""
        self.model.eval()
        windows = self.windows(split)
        device = next(self.model.parameters()).device
        self.bits = {}
        for domain in windows.domains:
            nats, size = 0.0, 0
            count = windows.count(domain)
            last = min(self.cfg.data.eval_windows or count, count)
            for first in range(0, last, EVAL_ROWS):
                found = windows.in_order(domain, first, min(first + EVAL_ROWS, last))
                tokens = torch.from_numpy(found.tokens).to(device)
                losses = self._token_losses(tokens)
                nats += float(losses[torch.from_numpy(found.mask).to(device)].double().sum())
                size += int(found.bytes.sum())
            self.bits[domain] = nats / math.log(2) / size
        return _flat(self.bits)

    def _token_losses(self, tokens: Int64[Tensor, "row time"]) -> Tensor:
        logits = self.model(tokens[:, :-1]).float()
        return nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")

    def baselines(self, split: str) -> dict[str, dict[str, float]]:
        """Byte frequencies, and frequencies of a byte after the one before it, of the training."""
        train, found = self.corpus.train, getattr(self.corpus, split)
        if self.cfg.data.eval_windows and self.cfg.data.tokenizer == "byte":  # the same text
            end = self.cfg.data.eval_windows * self.cfg.model.seq + 1
            found = {domain: part[:end] for domain, part in found.items()}
        single, double = np.ones(256), np.full((256, 256), 0.1)
        for part in train.values():
            single += np.bincount(part, minlength=256)
            pairs = part[:-1].astype(np.int64) * 256 + part[1:]
            double += np.bincount(pairs, minlength=65536).reshape(256, 256)
        ones = -np.log2(single / single.sum())
        twos = -np.log2(double / double.sum(1, keepdims=True))
        return {
            "byte frequencies": _flat({d: float(ones[x[1:]].mean()) for d, x in found.items()}),
            "pairs of bytes": _flat(
                {d: float(twos[x[:-1], x[1:]].mean()) for d, x in found.items()}
            ),
        }

    def predict(self, inputs: Path, out: Path) -> list[Path]:
        """Continue a text, streaming to the terminal; writes the text and its routing as a page."""
        return predict.predict_file(self, inputs, out)

    def pictures(self, out: Path) -> dict[Path, str]:
        """Which experts each domain's tokens go to, and bits per byte by domain."""
        return predict.report_pictures(self, out)

    def data_used(self) -> DataUsed:
        """The text of this configuration."""
        return data.used(self.cfg.data)

    def notes(self) -> list[str]:
        """What was measured, and how the layers were laid out."""
        cfg = self.cfg
        first, on_textmix = cfg.data.eval_windows, cfg.data.name == "textmix"
        lines = [
            f"bits per byte over windows of {cfg.model.seq} tokens, each byte but the first "
            + (f"of the first {first} windows of a domain" if first else "predicted once")
            + "; mean: over domains"
            + (". textmix has no test split: its val files are reported" * on_textmix),
        ]
        if cfg.model.moe_layers:
            layers = ", ".join(str(i) for i in cfg.model.moe_layers)
            drop = f"capacity factor {cfg.model.capacity_factor:g}"
            lines.append(
                f"{cfg.model.experts} experts, top-{cfg.model.top_k}, in blocks {layers}; "
                + (drop if cfg.model.capacity_factor else "no token is dropped")
            )
        layout = cfg.layout
        if layout.pp * layout.tp > 1 or layout.dispatch != "slice":
            lines.append(
                f"trained with pp {layout.pp}, tp {layout.tp}, schedule {layout.schedule}, "
                f"dispatch {layout.dispatch}"
            )
        return lines

    def labels(self) -> dict[str, str]:
        """Title of the only column."""
        return {"per byte": "bits per byte"}

    def claims(self) -> list[Claim[Config]]:
        """Experts lower the loss at equal compute (top-1: as many products as the dense network).

        The paper's claims on speed are measured by claims/ppmoe_network.py and benchmarks/ppmoe.py.
        """
        dense, moe, top2 = (
            Variant("dense", DENSE),
            Variant("MoE top-1", SMALL),
            Variant("MoE top-2", TOP2),
        )
        setting = (
            "top-1 multiplies as much as the dense network, plus the router; top-2 has twice the "
            "feed-forward work in half of the blocks. Equal steps and batches; seconds in the JSON"
        )
        metric = "bits/mean/per byte"
        return [
            Claim(
                "Eight experts, top-1, lower the loss of their dense backbone at equal steps.",
                dense, moe, metric, "lower", None, setting,
            ),
            Claim(
                "A second expert for each token lowers the loss further.",
                moe, top2, metric, "lower", None, setting,
            ),
        ]  # fmt: skip

    def export(self) -> Export:
        """Tokens to logits, as a dense network: every expert on every token, weighted by gates."""
        return exportable(self.model, self.cfg.model)


def _flat(bits: dict[str, float]) -> dict[str, float]:
    found = {f"bits/{domain}/per byte": value for domain, value in bits.items()}
    return found | {"bits/mean/per byte": float(np.mean(list(bits.values())))}
