"""Each system at its smallest: what tests add to the demo recipe, and an input to predict from.

As a script, `python tiny.py N train SYSTEM RECIPE ...` is `tenfold train ...` killed by SIGKILL
after N optimiser steps.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

COMMON = ["--loop.device", "cpu", "--loop.threads", "1"]
TINY: dict[str, list[str]] = {
    "spgsn": ["--model.width", "8", "--model.num-blocks", "1", "--data.future", "10"]
    + ["--data.num-coeffs", "15", "--steps", "6"],
    "ppmoe": ["--model.hidden", "16", "--model.heads", "2", "--model.seq", "32", "--steps", "6"]
    + ["--model.experts", "4", "--batch", "4", "--data.eval-windows", "4"],
    "pangu": ["--model.dim", "8", "--model.heads", "2", "2", "2", "2", "--steps", "6"]
    + ["--model.depths", "2", "1", "1", "1", "--data.batch-size", "4", "--evaluation.every", "6"],
    "ldc": ["--model.width", "4", "--steps", "6", "--data.batch-size", "16", "--data.draws", "2"]
    + ["--calibration.epochs", "5", "--calibration.samples", "5", "--calibration.base-steps", "5"]
    + ["--calibration.session-epochs", "3", "--optim.warmup", "2"],
    "itpn": ["--model.embed-dim", "16", "--model.heads", "2", "--model.depths", "1", "1", "2"]
    + ["--model.fpn-dim", "8", "--model.patch-size", "16", "--pretrain.decoder-dim", "16"]
    + ["--data.batch-size", "16", "--steps", "6"],
    "dts": ["--model.dims", "8", "8", "16", "16", "--model.depths", "1", "1", "1", "1"]
    + ["--model.heads", "1", "1", "2", "2", "--model.head-dim", "8", "--data.crop", "32", "32"]
    + ["--data.source-size", "48", "64", "--data.target-size", "48", "64", "--steps", "6"]
    + ["--data.batch-size", "2", "--data.generated", "6", "3", "--source-steps", "0"]
    + ["--groups.warmup", "1", "--data.test-every", "1"],
    "usage": ["--model.width", "8", "--model.depths", "1", "1", "1", "1", "--steps", "6"]
    + ["--data.generated", "16", "6", "--data.batch-size", "4", "--segment.batch-size", "4"]
    + ["--segment.width", "8", "--segment.steps", "4"],
    "apis": ["--model.widths", "8", "8", "16", "16", "--model.channels", "16", "--steps", "6"]
    + ["--data.generated", "8", "3", "--data.batch-size", "2", "--points.rounds", "1"]
    + ["--round-steps", "2"],
    "virreq": ["--model.dims", "8", "8", "16", "16", "--model.depths", "1", "1", "1", "1"]
    + ["--model.heads", "1", "1", "2", "2", "--model.head-dim", "8", "--text.dim", "16"]
    + ["--data.generated", "8", "3", "--data.batch-size", "4", "--steps", "6"]
    + ["--separate.steps", "4", "--separate.batch-size", "2", "--separate.proposals", "8"],
    "loupe": ["--image.size", "32", "--image.dim", "16", "--image.depths", "1"]
    + ["--image.heads", "2", "--text.dim", "16", "--text.hidden", "16", "--dim", "16"]
    + ["--data.generated", "24", "8", "--data.batch-size", "8", "--games.samples", "8"]
    + ["--games.regions", "3", "--steps", "6"],
}
"""Options that make the demo recipe a matter of seconds."""
PLAIN: dict[str, list[str]] = {
    "spgsn": ["--model.dropout", "0", "--steps", "3", "--optim.name", "sgd", "--optim.lr", "0.1"],
    # the balance loss of a half batch is another loss
    "ppmoe": ["--model.balance-weight", "0", "--steps", "3", "--optim.name", "sgd"]
    + ["--optim.lr", "0.1"],
    "pangu": ["--model.drop-path", "0", "--steps", "3", "--optim.name", "sgd", "--optim.lr", "0.1"]
    + ["--loop.amp", "off"],
    # Twenty BatchNorms on 16 pictures make 1e-3 of float32's rounding in a gradient (in float64 the
    # two agree: test_norm), and a square root makes much of that of features near zero.
    "ldc": ["--steps", "3", "--loop.amp", "off", "--optim.warmup", "0", "--optim.lr", "1e-5"]
    + ["--calibration.space", "raw", "--unit-optim.name", "sgd", "--unit-optim.lr", "1e-5"],
    "itpn": ["--loop.amp", "off", "--pretrain-optim.name", "sgd", "--pretrain-optim.lr", "0.01"]
    + ["--optim.name", "sgd", "--optim.lr", "0.01"],
    "dts": ["--loop.amp", "off", "--optim.name", "sgd", "--optim.lr", "0.01"]
    + ["--model.dropout", "0", "--steps", "3", "--host.threshold", "0.1"],
    "usage": ["--steps", "3", "--optim.name", "sgd", "--optim.lr", "1e-3", "--segment.steps", "2"]
    + ["--segment-optim.name", "sgd", "--segment-optim.lr", "1e-3", "--threshold.how", "fixed"],
    "apis": ["--steps", "3", "--optim.name", "sgd", "--optim.lr", "1e-2", "--points.strategy"]
    + ["random", "--round-optim.name", "sgd", "--round-optim.lr", "1e-2"],
    "virreq": ["--model.dropout", "0", "--steps", "3", "--optim.name", "sgd", "--optim.lr", "1e-2"]
    + ["--loop.amp", "off", "--separate.steps", "2", "--separate.proposals", "0"]
    + ["--separate-optim.name", "sgd", "--separate-optim.lr", "1e-4"],
    # coalitions are drawn by each process
    "loupe": ["--games.how", "exact", "--loss.ramp", "0", "0.5", "--loss.target", "difference"]
    + ["--loss.fine", "0.5", "--steps", "3", "--optim.name", "sgd", "--optim.lr", "1e-2"],
}
"""Options without noise that depends on the number of processes. SGD, because Adam makes steps of
full size out of rounding errors where a gradient is zero (a bias before a BatchNorm)."""
IMPROVING: dict[str, list[str]] = {
    "spgsn": ["--model.width", "16", "--steps", "60", "--optim.lr", "3e-3", "--optim.warmup", "5"],
    "ppmoe": ["--steps", "60", "--optim.lr", "1e-2", "--optim.warmup", "5"],
    "pangu": ["--steps", "40", "--optim.lr", "3e-3", "--optim.warmup", "5"],
    "ldc": ["--steps", "100", "--optim.warmup", "5", "--model.width", "8", "--data.no-rotations"]
    + ["--data.batch-size", "32", "--calibration.session-epochs", "30"]
    + ["--calibration.base-steps", "50"],
    "itpn": ["--steps", "60", "--pretrain-optim.lr", "6e-3", "--optim.lr", "1e-2", "--no-probes"]
    + ["--model.embed-dim", "32", "--data.batch-size", "32", "--finetune.layer-decay", "1"],
    "dts": ["--source-steps", "40", "--steps", "2", "--source-optim.lr", "1e-2"],
    "usage": ["--steps", "100", "--segment.steps", "40", "--data.batch-size", "12"]
    + ["--data.generated", "36", "8", "--segment.batch-size", "8"],
    "apis": ["--steps", "60", "--round-steps", "20", "--data.batch-size", "4"]
    + ["--data.generated", "24", "6", "--model.widths", "16", "16", "32", "32"],
    "virreq": ["--steps", "40", "--optim.lr", "5e-3", "--model.dims", "16", "16", "32", "32"],
    "loupe": ["--steps", "60", "--optim.lr", "5e-3", "--data.generated", "64", "16"]
    + ["--data.batch-size", "16"],
}
"""Options with which the tiny system learns something; added to TINY."""


def options(system: str) -> list[str]:
    """All options of the tiny run."""
    return [*COMMON, *TINY[system]]


def config(system: str, recipe: str, words: list[str]) -> Any:
    """A recipe changed as the command line would, completed by the data."""
    import tyro

    from tenfold import systems

    cls = systems.system_class(system)
    default = cls.recipes[recipe]
    return cls.complete(tyro.cli(type(default), args=words, default=default))


def walker_npz(folder: Path) -> Path:
    """A generated walk of 60 frames that no training saw."""
    from tenfold.generated import walker

    path = folder / "walk.npz"
    clips = walker.clips("test", seed=5, num_per_action=1, frames=60)
    np.savez(path, positions=clips[0].positions)
    return path


def prompt(folder: Path) -> Path:
    """The beginning of a text."""
    path = folder / "prompt.txt"
    path.write_text("def main(words):\n    ")
    return path


def weather(folder: Path) -> Path:
    """Two generated states, a day apart from each other's neighbours."""
    from tenfold.generated import waves

    return waves.write_netcdf(folder / "states.nc", waves.WaveStates(), [80, 84])


def picture(folder: Path) -> Path:
    """A generated picture of the first class."""
    from PIL import Image

    from tenfold.generated import shapes

    path = folder / "picture.png"
    Image.fromarray(shapes.draw(0, ["a picture of its own"])[0].transpose(1, 2, 0)).save(path)
    return path


def scene(folder: Path) -> Path:
    """A generated scene of its own."""
    from PIL import Image

    from tenfold.generated import scenes

    path = folder / "scene.png"
    Image.fromarray(scenes.scene("a split of its own", 0).picture).save(path)
    return path


def street(folder: Path) -> Path:
    """A generated street of its own."""
    from PIL import Image

    from tenfold.generated import streets

    path = folder / "street.png"
    Image.fromarray(streets.scene("a split of its own", 0, size=(48, 64))[0]).save(path)
    return path


def things(folder: Path) -> Path:
    """A generated picture of things with cores."""
    from PIL import Image

    from tenfold.generated import shapes_wsss

    path = folder / "things.png"
    Image.fromarray(shapes_wsss.pair("a split of its own", 0)[0]).save(path)
    return path


def hollow(folder: Path) -> Path:
    """A generated picture of concave objects."""
    from PIL import Image

    from tenfold.generated import hollows

    path = folder / "hollow.png"
    Image.fromarray(hollows.picture("a split of its own", 0).picture).save(path)
    return path


def dolls_picture(folder: Path) -> Path:
    """A generated picture of dolls and carts."""
    from PIL import Image

    from tenfold.generated import dolls

    path = folder / "dolls.png"
    Image.fromarray(dolls.pair("a split of its own", 0)[0]).save(path)
    return path


def captioned_picture(folder: Path) -> Path:
    """A generated picture of coloured shapes."""
    from PIL import Image

    from tenfold.generated import captioned

    path = folder / "captioned.png"
    Image.fromarray(captioned.captioned("a split of its own", 0).picture).save(path)
    return path


SAMPLES: dict[str, Callable[[Path], Path]] = {
    "spgsn": walker_npz,
    "ppmoe": prompt,
    "pangu": weather,
    "ldc": picture,
    "itpn": scene,
    "dts": street,
    "usage": things,
    "apis": hollow,
    "virreq": dolls_picture,
    "loupe": captioned_picture,
}
"""Writes an input of `tenfold predict`."""


def killed(steps: int, words: list[str]) -> None:
    """Run the command line; die without warning after so many optimiser steps."""
    from tenfold import cli, systems

    cls = systems.system_class(words[1])
    stages, done = cls.stages, 0

    def counted(system: Any) -> Iterator[Any]:
        for stage in stages(system):
            inner = stage.after_step

            def count(step: int, inner: Callable[[int], None] = inner) -> None:
                nonlocal done
                inner(step)
                done += 1
                if done == steps:
                    os.kill(os.getpid(), signal.SIGKILL)

            stage.after_step = count
            yield stage

    cls.stages = counted  # type: ignore[method-assign]
    cli.main(words)


if __name__ == "__main__":
    killed(int(sys.argv[1]), sys.argv[2:])
