"""Forecast human motion from Python: python examples/spgsn.py OUT.

Train on BVH files, predict one of them, then use the network in a loop of your own.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

import tenfold
from tenfold.data.motion.bvh import write_bvh
from tenfold.generated import walker
from tenfold.runner.train import train
from tenfold.systems.spgsn import Spgsn
from tenfold.systems.spgsn.takes import blank_bvh

out = Path(sys.argv[1])

# Your files: any BVH files of one skeleton. Here some are generated, six walks of two seconds.
for number, clip in enumerate(walker.clips("train", num_per_action=6, frames=120)[:6]):
    body = blank_bvh(walker.CMU)
    write_bvh(out / f"motions/walk_{number}.bvh", body.with_positions(clip.positions))

# A recipe is a frozen dataclass: change what you like. The last fifth of the files is the test.
small = Spgsn.recipes["small"]
config = replace(
    small,
    model=replace(small.model, width=16, num_blocks=1),
    data=replace(small.data, name="bvh", path=str(out / "motions"), mm_per_unit=1.0),
    steps=40,
)
result = train("spgsn", Spgsn, "small", config, out / "run")
print({key: round(value, 1) for key, value in result["metrics"].items() if "/average/" in key})

# The run folder has all that is needed later: weights, configuration, a page to look at.
system = tenfold.load(out / "run")
for path in system.predict(out / "motions/walk_5.bvh", out / "predicted"):
    print(path)

# The network is an ordinary module: DCT coefficients in and out, (window, coordinate, coefficient).
stage = next(system.stages())
optimiser = torch.optim.Adam(stage.model.parameters(), lr=1e-3)
for step in range(3):
    loss = stage.model.train()(stage.batches(step))["loss"]  # mm
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    print(f"step {step}: {loss.item():.1f} mm")
