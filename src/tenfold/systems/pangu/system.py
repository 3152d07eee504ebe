"""Pangu-Weather as a system: train, verify, forecast, track, claim, convert."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tenfold.core import dist
from tenfold.core.capabilities import Export
from tenfold.core.claim import Claim, Variant
from tenfold.core.seed import generator
from tenfold.core.stage import Stage
from tenfold.core.system import DataUsed, Evaluation, Paper, System
from tenfold.data.weather.climatology import Climatology, default_harmonics, fit_climatology
from tenfold.data.weather.grid import Grid
from tenfold.data.weather.names import QUANTITIES
from tenfold.data.weather.statistics import statistics
from tenfold.metrics.weather import REGIONS
from tenfold.viz.predictions import Trained

from . import data
from .config import Config, PredictOptions
from .evaluation import WB_RMSE, Verification, Verified, reachable
from .figures import report_pictures
from .forecast import shown
from .forecaster import Forecaster, ForecastModel, TrainingModel
from .model import Pangu
from .predict import predict
from .recipes import DAY, DAY_OFFICIAL, RECIPES, SIX, SIX_OFFICIAL

VALIDATION_BATCH = 16
VALIDATION_STATES = 64
"""States that validation during training reads, at most."""
HEADLINE_HOURS = 24
IN_UNITS = ("rmse", "bias", "crps", "spread", "ensemble rmse", "unperturbed rmse")
"""Groups of metrics in the unit of the field."""


class PanguWeather(System[Config]):
    """Forecasts by 3D Earth-specific transformers, one a lead time."""

    paper = Paper(
        arxiv="2211.02556",
        title="Pangu-Weather: A 3D High-Resolution Model for Fast and Accurate Global Weather "
        "Forecast",
        says="A 3D Earth-specific transformer, and long forecasts by few long steps instead of "
        "many short ones, forecast the weather better than numerical models.",
        cite="@article{bi2023accurate,\n"
        "  title={Accurate medium-range global weather forecasting with 3D neural networks},\n"
        "  author={Bi, Kaifeng and Xie, Lingxi and Zhang, Hengheng and Chen, Xin and Gu, Xiaotao "
        "and Tian, Qi},\n  journal={Nature},\n  volume={619},\n  pages={533--538},\n"
        "  year={2023}\n}",
        code="198808xc/Pangu-Weather (pseudocode and inference; no training code)",
        weights_licence="CC BY-NC-SA 4.0 (ONNX files for 1, 3, 6 and 24 h)",
    )
    recipes: ClassVar[dict[str, Config]] = RECIPES
    better: ClassVar[dict[str, str]] = {
        "rmse": "lower",
        "acc": "higher",
        "crps": "lower",
        "ensemble rmse": "lower",
        "unperturbed rmse": "lower",
        WB_RMSE: "lower",
    }
    units: ClassVar[dict[str, str]] = {
        **dict.fromkeys(IN_UNITS, "SI"),  # of each field: see `__init__`
        "acc": "1",
        "rqe": "1",
        "spread over error": "1",
    }
    headline: list[str] = [f"rmse/z500/{HEADLINE_HOURS}h"]
    task = "global weather forecasts: 3D Earth-specific transformer, ensembles, cyclone tracks"
    accepts = (
        "states on the run's grid with its fields: NetCDF, GRIB, Zarr, or a folder of NetCDF or "
        "GRIB (ERA5, WeatherBench2 or Pangu names), or the official input_upper.npy and "
        "input_surface.npy"
    )
    intended = (
        "Research on data-driven forecasts. Models trained on the simulated or generated sets here "
        "say nothing of real weather. Not for warnings, or decisions about safety."
    )
    paths: ClassVar[tuple[str, ...]] = (*System.paths, "evaluation.climatology")
    generated: ClassVar[tuple[str, ...]] = ("waves",)
    own_data = "files"
    passes: ClassVar[tuple[str, ...]] = ("epochs",)
    options = PredictOptions()

    def __init__(self, cfg: Config, model: nn.Module | None = None) -> None:
        """Build networks for the configuration; or take `model`, a `ForecastModel`, as it is."""
        super().__init__(cfg)
        if not cfg.grid.latitudes:
            raise ValueError("the configuration has no grid; use PanguWeather.complete(cfg)")
        for lead in cfg.leads:
            if lead % cfg.grid.step:
                raise ValueError(
                    f"leads has {lead} h, but the data have a state every {cfg.grid.step} h; "
                    f"choose multiples of {cfg.grid.step}, such as --leads 24 {cfg.grid.step}"
                )
        hours = reachable(cfg)
        at = HEADLINE_HOURS if HEADLINE_HOURS in hours else hours[0]
        self.headline = [f"rmse/{name}/{at}h" for name in shown(cfg.grid)]
        self.units = {  # type: ignore[misc]  # the fields are those of the data
            **type(self).units,
            **{f"{g}/{f}": unit for g in IN_UNITS for f, unit in field_units(cfg.grid).items()},
            **{
                f"{WB_RMSE}/{f} {region}".strip(): unit
                for f, unit in field_units(cfg.grid).items()
                for region in ("", *REGIONS)
            },
        }
        self.model = Forecaster(cfg) if model is None else model
        self.archive = data.Archive(cfg)

    @classmethod
    def complete(cls, cfg: Config) -> Config:
        """Take the grid from the data; fall back to generated waves where there are none."""
        cfg = data.complete(cfg)
        file = Path(cfg.evaluation.climatology)
        if cfg.evaluation.climatology and file.exists():
            Climatology.load(file, cfg.grid)  # one that does not fit is told before the training
        return cfg

    @property
    def forecaster(self) -> Forecaster:
        """The networks behind SI units.

        Raises:
            ValueError: The system runs official files as they are.
        """
        if not isinstance(self.model, Forecaster):
            raise ValueError(
                "official files are evaluated, trained and exported after "
                "`tenfold convert pangu FILES`"
            )
        return self.model

    # --- training -------------------------------------------------------------------------------

    def stages(self) -> Iterator[Stage]:
        """A network for each lead time, and where asked for its fine-tuning over several calls."""
        cfg, archive, forecaster = self.cfg, self.archive, self.forecaster
        # blocks that are too short, before anything is read or trained
        for lead in cfg.leads:
            archive.training_chains(lead, cfg.rollout if cfg.finetune_steps else 1)
        if not any(len(archive.chains("test", [hours])) for hours in reachable(cfg)):
            raise ValueError(
                f"no state of the test split has another one {reachable(cfg)[0]} h later in its "
                "block; give data.test more times, or choose shorter evaluation.hours"
            )
        states = archive.states
        for line in states.left_out if dist.current().is_first else ():
            warnings.warn(f"left out: {line}", stacklevel=2)
        forecaster.set_statistics(statistics(states, archive.indices("train")))
        forecaster.set_maps(states.missing, states.constants())
        for lead in cfg.leads:
            yield self._stage(lead, 1, cfg.steps or cfg.epochs * archive.epochs(lead, 1).steps)
            if cfg.finetune_steps:
                yield self._stage(lead, cfg.rollout, cfg.finetune_steps)

    def _stage(self, lead: int, calls: int, steps: int) -> Stage:
        network = self.forecaster.networks[str(lead)]
        assert isinstance(network, Pangu)
        optim, name = self.cfg.optim, f"{lead}h"
        if calls > 1:
            optim = replace(optim, lr=self.cfg.finetune_lr)
            name = f"{lead}h, {calls} calls"
        validate = None
        if self._validation_chains(lead, calls) is not None:
            validate = partial(self._validate, lead=lead, calls=calls)
        return Stage(
            name=name,
            model=TrainingModel(network, self.forecaster.missing),
            batches=partial(self._batch, lead=lead, calls=calls),
            steps=steps,
            optim=optim,
            independent=calls == 1,
            validate=validate,
            monitor="loss" if validate is not None and self.cfg.loop.validate_every else "",
        )

    def _batch(self, index: int, lead: int, calls: int) -> dict[str, Tensor]:
        return self._normalised(self.archive.batch(index, lead, calls))

    def _normalised(self, chains: dict[str, Tensor]) -> dict[str, Tensor]:
        upper, surface = chains["upper"], chains["surface"]
        u, s = self.forecaster.normalised(upper.flatten(0, 1), surface.flatten(0, 1))
        shape = upper.shape[:2]
        return {"upper": u.unflatten(0, shape), "surface": s.unflatten(0, shape)}

    def _validation_chains(self, lead: int, calls: int) -> Any:
        """Chains of held-out states, evenly chosen, or None where none is as long."""
        if not (self.archive.split == data.VALIDATION).any():
            return None
        chains = self.archive.chains("validation", [lead * n for n in range(1, calls + 1)])
        return chains[:: -(-len(chains) // VALIDATION_STATES)] if len(chains) else None

    def _validate(self, training_model: nn.Module, lead: int, calls: int) -> dict[str, float]:
        """The training loss on held-out states."""
        assert isinstance(training_model, TrainingModel)
        chains = self._validation_chains(lead, calls)
        total, device = 0.0, next(training_model.parameters()).device
        for first in range(0, len(chains), VALIDATION_BATCH):
            part = chains[first : first + VALIDATION_BATCH]
            upper, surface = self.archive.stack(part.flatten())
            batch = self._normalised(
                {
                    "upper": upper.unflatten(0, part.shape),
                    "surface": surface.unflatten(0, part.shape),
                }
            )
            loss = training_model({name: value.to(device) for name, value in batch.items()})["loss"]
            total += float(loss) * len(part)
        return {"loss": total / len(chains)}

    # --- results --------------------------------------------------------------------------------

    def climatology(self) -> Climatology:
        """The usual state at a time of the year, from training states or evaluation.climatology."""
        name = self.cfg.evaluation.climatology
        if name and not Path(name).exists() and dist.current().is_first:
            self._fitted().save(Path(name))
        if not name:
            return self._fitted()
        dist.current().barrier(patient=True)
        return Climatology.load(Path(name), self.cfg.grid)

    def _fitted(self) -> Climatology:
        indices = self.archive.indices("train")
        harmonics = default_harmonics(self.archive.states.times[indices])
        return fit_climatology(self.archive.states, indices.tolist(), harmonics)

    def evaluate(self, split: str = "test") -> Evaluation:
        """Measure forecasts from the states of a split by field and lead time.

        With evaluation.members ensembles are measured, too. Baselines are persistence (the start
        is the forecast) and the climatology of the training states.

        Args:
            split: "test" or "validation".

        Returns:
            "rmse/z500/24h" -> value in SI units, so "bias" and where members are asked for
            "crps", "spread", "ensemble rmse" and "unperturbed rmse"; "acc", "rqe" and
            "spread over error" are ratios. `details` is a `Verified`.

        Raises:
            ValueError: No start of the split has a state so much later, there is no such split, or
                the system runs official files as they are.
        """
        forecaster = self.forecaster.eval()
        verified = Verification(self.cfg, self.archive, forecaster, self.climatology()).run(split)
        baselines = {name: verified.scores[name] for name in ("persistence", "climatology")}
        return Evaluation(verified.scores["models"], baselines, verified, verified.remarks)

    def write_predictions(self, inputs: Path, out: Path, options: PredictOptions) -> list[Path]:
        """Forecast from a state of a file: NetCDF or Zarr, maps, scores, tracks.

        A folder is one series of states. Under `torchrun` the members of an ensemble are divided.
        """
        self.model.eval()
        assert isinstance(self.model, ForecastModel)
        used = self.data_used()
        trained = Trained(self.paper.title, used.name, used.kind)
        return predict(inputs, out, self.model, self.cfg.grid, options, trained)

    def draw_pictures(self, evaluation: Evaluation, out: Path) -> dict[Path, str]:
        """Draw error over lead time, and one forecast beside the truth."""
        assert isinstance(evaluation.details, Verified)
        forecaster, earth = self.forecaster.eval(), self.data_used().kind != "generated"
        return report_pictures(evaluation.details, forecaster, self.archive, earth, out)

    def data_used(self) -> DataUsed:
        """The data of this configuration."""
        return data.used(self.cfg.data)

    def notes(self) -> list[str]:
        """Head, protocol, lead times that were left out."""
        cfg, hours = self.cfg, reachable(self.cfg)
        head = "residual: the network is added to its input (ours)"
        lines = [
            "head: " + (head if cfg.model.residual else "official, no path around the network"),
            f"models of {', '.join(map(str, cfg.leads))} h; longer lead times by chains of them, "
            "longest first",
            "rmse: square root of the mean over area, then the mean over starts (as the paper; "
            "WeatherBench2 takes the root last: weatherbench rmse, also by its regions). acc: "
            "anomaly from the climatology of the training states by day of year, not centred. rqe: "
            "below 0 where extremes are too weak",
        ]
        lines += [f"left out of the files: {line}" for line in self.archive.left_out]
        if left := sorted(set(cfg.evaluation.hours) - set(hours)):
            lines.append(f"not reached by these models: {', '.join(map(str, left))} h")
        if cfg.evaluation.members:
            lines.append(
                f"ensembles: {cfg.evaluation.members} members, noise of "
                f"{cfg.evaluation.amplitude:g} standard deviations, every "
                f"{cfg.evaluation.ensemble_every} starts; unperturbed rmse is that of member 0 "
                "from the same starts; crps is the fair one"
            )
        return lines

    def labels(self) -> dict[str, str]:
        """Titles of lead times, and of the errors that a page shows first."""
        hours = reachable(self.cfg)
        return {
            **{f"{h}h": f"{h} h" for h in hours},
            **{
                f"rmse/{name}/{h}h": f"error (RMSE) of {name} after {h} h"
                for name in shown(self.cfg.grid)
                for h in hours
            },
        }

    def claims(self) -> list[Claim[Config]]:
        """Fewer, longer steps beat many short ones: the paper's temporal aggregation."""
        setting = (
            "20 passes over the pairs of states for either network, same size, batch and rate "
            "(there are more pairs 6 h apart: 7 % more steps); 24 h is one call of the one and "
            "four of the other. Weights: the best on the last two days of each training block. "
            "Rate and schedule were chosen beforehand; nothing was tuned on the test blocks"
        )
        heads = [
            ("residual head", Variant("24 h steps", DAY), Variant("6 h steps", SIX)),
            (
                "official head",
                Variant("24 h steps (official head)", DAY_OFFICIAL),
                Variant("6 h steps (official head)", SIX_OFFICIAL),
            ),
        ]
        names = {"z500": "Z500", "t850": "T850", "t2m": "T2M"}
        return [
            Claim(
                f"Steps of 24 h beat a chain of 6 h steps at {hours} h, {title} ({head}).",
                six, day, f"rmse/{name}/{hours}h", "lower", None, setting,
            )
            for head, day, six in heads
            for hours in (24, 72)
            for name, title in names.items()
        ]  # fmt: skip

    def export(self) -> Export:
        """The first lead time's network alone: normalised fields in and out."""
        grid, draw = self.cfg.grid, generator("export")
        upper = torch.randn(2, len(grid.upper), len(grid.levels), *grid.shape, generator=draw)
        surface = torch.randn(2, len(grid.surface), *grid.shape, generator=draw)
        module = self.forecaster.networks[str(self.cfg.leads[0])].cpu().eval()
        names = ("input", "input_surface"), ("output", "output_surface")
        return Export(module, (upper, surface), *names)

    def export_official(self, out: Path) -> list[Path]:
        """Every network as an ONNX file of the official layout, checked by running it.

        Raises:
            ValueError: A file would differ from its network, or the folder holds anything.
        """
        from .onnx.run import write_official

        return write_official(self.forecaster, out)

    @classmethod
    def convert(cls, source: Path) -> tuple[PanguWeather, Any]:
        """Read official ONNX files: one, or a folder of several lead times."""
        from .onnx.network import convert_folder
        from .onnx.run import config_of, names_beside, take_over

        official = convert_folder(source, names_beside(source))
        system = cls(config_of(official))
        return system, take_over(system.forecaster, official)

    @classmethod
    def open(cls, source: Path) -> PanguWeather:
        """Official ONNX files as they are, run by onnxruntime, for `predict` alone."""
        from .onnx.run import open_official

        return cls(*open_official(source))


def field_units(grid: Grid) -> dict[str, str]:
    """Unit of each field of a grid whose variable is known: z500 -> m2/s2."""
    upper = {f"{name}{level}": name for name in grid.upper for level in grid.levels}
    variables = {**upper, **{name: name for name in grid.surface}}
    return {f: QUANTITIES[name].unit for f, name in variables.items() if name in QUANTITIES}
