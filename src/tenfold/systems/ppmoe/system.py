"""PPMoE as a system: train on any layout, measure bits per byte, sample, claim."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tenfold.core import checkpoint, dist
from tenfold.core.capabilities import Export
from tenfold.core.claim import Claim
from tenfold.core.pace import Work
from tenfold.core.stage import Backward, Losses, Stage
from tenfold.core.system import DataUsed, Evaluation, Paper, Streamed, System
from tenfold.data.text.tokens import TokenWindows
from tenfold.viz.predictions import Trained
from tenfold.weights.keymap import Converted

from . import claims, data, published
from .config import Config, Data, Layout, PredictOptions
from .evaluation import Details, evaluate
from .export import exportable
from .figures import bits_figure, load_figures
from .model import Gpt
from .parallel import Grid, make_grid
from .pipeline import Part, Tally
from .planner.cost import training_flop
from .planner.shape import shape_of
from .predict import predict_file, predict_folder
from .recipes import RECIPES
from .routing_load import expert_load, some_windows

SPLITS = ("test", "validation")
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
    accepts = "a UTF-8 text file, plain, .gz or .xz, or a folder of them; the end is continued"
    intended = (
        "Research on training mixtures of experts. The small models write text that is wrong and "
        "may repeat what they were trained on. Not for production of text that people rely on."
    )
    resumable: ClassVar[tuple[str, ...]] = (*System.resumable, "layout")
    options = PredictOptions()
    paths: ClassVar[tuple[str, ...]] = (*System.paths, "data.tokenizer_file")
    generated: ClassVar[tuple[str, ...]] = ("python",)
    own_data = "files"

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        if not cfg.model.vocab:
            raise ValueError("the configuration has no vocabulary; use Ppmoe.complete(cfg)")
        self.text = data.Text(cfg)
        self.tokenizer = self.text.tokenizer
        if not data.fits(cfg.model.vocab, self.tokenizer.vocab, cfg.data.tokenizer):
            raise ValueError(
                f"model.vocab is {cfg.model.vocab}, but the {cfg.data.tokenizer} tokenizer has "
                f"{self.tokenizer.vocab} tokens; leave model.vocab at 0"
            )
        self.part: Part | None = None
        self.given: dict[str, Tensor] = {}
        """Weights of the whole model that the parts on several processes start from."""
        self.stored: Path | None = None
        """Weights of the whole model that are read where they are needed."""
        if dist.current().size == 1:
            self.part = Part(cfg, Grid())
            self.model = self.part.parts[0]
        else:  # each process will have its part; the whole is read where it is needed
            with torch.device("meta"):
                self.model = Gpt(cfg.model)

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

    def fitting(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Upcycle: weights of a dense network where this one has experts become theirs."""
        return published.upcycled(state, self.cfg.model, self.cfg.seed)

    def begin(self, state: dict[str, Tensor]) -> None:
        """Take weights to start from; each of several processes takes its part when it has one."""
        if self.part is not None:
            super().begin(state)
        else:
            self.given = state

    # --- training -------------------------------------------------------------------------------

    def stages(self) -> Iterator[Stage]:
        """One stage, on however many processes there are."""
        cfg, world = self.cfg, dist.current()
        grid = make_grid(cfg, world)
        replica = dist.World(grid.dp.rank, grid.dp.size, world.device)
        self.windows("train").draw(1, 0)  # text that is too short is found before anything starts
        part = self.part if self.part is not None else Part(cfg, grid)
        if self.given:
            part.load_whole(self.given)
        last: list[Tally] = []

        def training_step(model: nn.Module, batches: Any, backward: Backward) -> Losses:
            if cfg.model.dropout:  # another for each stage; tensor ranks with the same tokens alike
                apart = grid.pp.rank + grid.pp.size * grid.split.rank
                torch.manual_seed(int(batches[0]["seed"]) + apart)
            last[:] = [part.train_step(batches)]
            return self._account(last[0])

        def after_step(step: int) -> None:
            part.share()
            if cfg.model.bias_rate:
                part.balance(last[0].counts(), cfg.model.bias_rate)

        yield Stage(
            name="train",
            model=part,
            batches=lambda index: self.text.batch(index, replica),
            steps=cfg.steps,
            optim=cfg.optim,
            groups=part.groups,
            training_step=training_step,
            after_step=after_step,
            parallel=part.whole,
            scaled=part.scale_loss,
            compiles=part.compile_blocks,
            validate=lambda module: self._validate(module, replica),
            monitor="bits" if cfg.loop.validate_every else "",
            work=self._work(),
        )
        self.part = part

    def _work(self) -> Work:
        """Tokens of a step over all processes, and the FLOP of their products."""
        tokens = self.cfg.batch * self.cfg.loop.accumulate * self.cfg.model.seq
        return Work(tokens, "tokens", training_flop(shape_of(self.cfg.model), tokens))

    def _account(self, tally: Tally) -> dict[str, Tensor]:
        """Quantities to log of a step: the loss and its terms, and what the routers did."""
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
            held_out = windows.in_order(domain, 0, VALIDATION_WINDOWS)
            rows = -(-len(held_out.tokens) // replica.size) * replica.size
            # every replica the same number of rows: experts may lie on other replicas
            order = np.arange(rows) % len(held_out.tokens)
            counts = (np.arange(rows) < len(held_out.tokens))[:, None] & held_out.mask[order]
            own = replica.share(rows)
            tokens = torch.from_numpy(held_out.tokens[order][own]).to(replica.device)
            losses = module.token_losses(tokens).double()
            nats = (losses * torch.from_numpy(counts[own]).to(replica.device)).sum()
            total = float(module.grid.dp.sum_(nats))
            bits.append(total / math.log(2) / float(held_out.bytes.sum()))
        return {"bits": float(np.mean(bits))}

    # --- weights that no process holds whole ----------------------------------------------------

    @property
    def is_divided(self) -> bool:
        """True if several processes hold parts of the model, and none the whole."""
        return any(p.is_meta for p in self.model.parameters())

    def streamed(self) -> Streamed:
        """Whole tensors one after another on the first process, None on the others."""
        assert self.part is not None
        shapes = dict(sorted(published.shapes(self.cfg.model).items()))
        return Streamed(shapes, self.part.streamed(shapes))

    def read_from(self, file: Path) -> None:
        """Remember where the whole model's weights lie; what is needed of them is read then."""
        self.stored = file

    def _divided(self) -> Part | None:
        """This process's part, if the model is divided and the processes fit its layout."""
        cfg, world = self.cfg, dist.current()
        held = cfg.layout.pp * cfg.layout.tp
        if self.part is None and self.stored is not None and held > 1 and not world.size % held:
            whole = replace(cfg.layout, fsdp=False)  # without gradients a part is small
            cfg = replace(cfg, batch=world.size // held, layout=whole)
            grid = make_grid(cfg, world)
            self.part = Part(cfg, grid, "meta").to_empty(device=world.device)
            with checkpoint.opened(self.stored) as weights:
                self.part.load_whole(weights)
        return self.part if self.is_divided else None

    # --- results --------------------------------------------------------------------------------

    def evaluate(self, split: str = "test") -> Evaluation:
        """Measure bits per byte of each domain and their mean, beside counts of bytes.

        Args:
            split: "test" or "validation".

        Returns:
            Metrics "bits/<domain>/per byte" and "bits/mean/per byte", the same of the baselines
            "byte frequencies" and "pairs of bytes", and what `pictures` draws.

        Raises:
            ValueError: There is no such split.
        """
        if split not in SPLITS:
            raise ValueError(f"there is no split {split!r}; known: {', '.join(SPLITS)}")
        model = self._divided() or self._whole()
        counted = self.corpus if self.corpus is not None else self.windows("train")
        return evaluate(model, self.cfg, counted, self.windows(split), split)

    def write_predictions(self, inputs: Path, out: Path, options: PredictOptions) -> list[Path]:
        """Continue a text, or every text of a folder; write the texts and who read what."""
        model = self._whole()
        if not inputs.is_dir():
            return predict_file(model, self.tokenizer, inputs, out, options)
        trained = Trained("PPMoE", self.cfg.data.name, "real", [self.intended])
        return predict_folder(model, self.tokenizer, inputs, out, options, trained)

    def draw_pictures(self, evaluation: Evaluation, out: Path) -> dict[Path, str]:
        """Draw the experts that each domain's tokens go to, and bits per byte by domain."""
        details = evaluation.details
        if not isinstance(details, Details):
            raise ValueError(
                f"an evaluation of PPMoE has details to draw, got {details!r}: give what "
                "system.evaluate returned"
            )
        split, load = details.split, details.load
        if load is None and self.cfg.model.moe_layers:
            load = expert_load(self._whole(), some_windows(self.windows(split)))
        drawn = load_figures(self.cfg.model, load or {}, split, out)
        return drawn | bits_figure(details.bits, evaluation.baselines, split, out)

    def _whole(self) -> Gpt:
        """The whole network, read where training or several processes have divided it."""
        assert isinstance(self.model, Gpt)
        if self.is_divided:
            if self.stored is None:
                raise ValueError(
                    "this process holds a part of the model only; open the whole with "
                    "tenfold.load(RUN) once its weights are written"
                )
            # into memory of its own: a product's rounding may depend on how a file is aligned
            self.model.to_empty(device="cpu")
            self.model.load_state_dict(checkpoint.read_tensors(self.stored))
            self.model.to(dist.current().device).eval()
        return self.model

    def data_used(self) -> DataUsed:
        """The text of this configuration."""
        return data.used(self.cfg.data)

    def notes(self) -> list[str]:
        """Notes on the measure, and on how the layers were laid out."""
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
            drop = f"capacity factor {cfg.model.capacity_factor:g} in training alone"
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
        """Titles of the only column and of the headline."""
        return {"per byte": "bits per byte", self.headline[0]: "bits per byte, mean over domains"}

    def claims(self) -> list[Claim[Config]]:
        """Experts against their dense backbone, at equal steps and at equal compute."""
        return claims.claims()

    @classmethod
    def convert(cls, source: Path) -> tuple[Ppmoe, Converted]:
        """Read a model in the layout of transformers: Mixtral, Qwen-MoE, or dense as Llama's.

        Args:
            source: Folder with config.json, tokenizer.json and safetensors, in one file or shards.

        Returns:
            The system, and the account of every key.
        """
        folder = published.Folder.open(source)
        named = Data(tokenizer_file=str(source / "tokenizer.json"))
        cfg = replace(
            RECIPES["paper"],
            model=published.model_of(folder.config),
            layout=Layout(),
            data=data.with_tokenizer(named),
        )
        system = cls(cfg)
        return system, published.load(folder, system._whole())

    def export_official(self, out: Path) -> list[Path]:
        """Write the model in the layout of transformers, with its tokenizer.

        Raises:
            ValueError: transformers has no such network; the first difference is named.
        """
        state = self._whole().state_dict()
        files = published.write(out, self.cfg.model, state.__getitem__)
        return [*files, *published.write_tokenizer(out, self.tokenizer)]

    def export(self) -> Export:
        """Tokens to logits, as a dense network: every expert on every token, weighted by gates."""
        return exportable(self.model, self.cfg.model)
