"""Forecast the weather from Python: python examples/pangu.py OUT.

Train on files of states, forecast from one of them, then use the network in a loop of your own.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

import tenfold
from tenfold.generated.waves import WaveStates, write_netcdf
from tenfold.runner.train import train
from tenfold.systems.pangu import PanguWeather
from tenfold.systems.pangu.config import Data, PredictOptions

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)

# Your states: NetCDF or Zarr, as ERA5 comes. Here fifteen days are generated, one every six hours.
states = write_netcdf(out / "states.nc", WaveStates(), range(60))

# A recipe is a frozen dataclass: change what you like. The last tenth of the times is the test.
demo = PanguWeather.recipes["demo"]
config = replace(
    demo,
    model=replace(demo.model, dim=8, heads=(2, 2, 2, 2), depths=(1, 1, 1, 1)),
    data=Data(name="files", path=str(states), batch_size=4),
    evaluation=replace(demo.evaluation, hours=(24,), every=1),
    steps=20,
)
result = train("pangu", PanguWeather, "demo", config, out / "run")
print({name: round(result["metrics"][name], 1) for name in result["main"]})

# A day by an ensemble of three members: NetCDF, maps, and a page to look at.
system = tenfold.load(out / "run")
options = PredictOptions(start="50", hours=24, members=3, animate=False)
for path in system.predict(states, out / "forecast", options):
    print(path)

# The network is an ordinary module; a batch holds normalised states, (sample, call, ...).
stage = next(system.stages())
optimiser = torch.optim.Adam(stage.model.parameters(), lr=1e-3)
for step in range(3):
    loss = stage.model.train()(stage.batches(step))["loss"]
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    print(f"step {step}: {loss.item():.4f}")
