"""LDC from Python, from own photos to answers: `python examples/ldc.py OUT`."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

import tenfold
from tenfold.generated import shapes
from tenfold.runner.train import train
from tenfold.systems.ldc import Ldc, PredictOptions

out = Path(sys.argv[1])
for label in range(4):  # your photos: a folder a class; the last one is kept for later
    folder = out / ("later" if label == 3 else "photos") / f"shape {label}"
    folder.mkdir(parents=True, exist_ok=True)
    for i, photo in enumerate(shapes.draw(label, [f"example {i}" for i in range(12)])):
        Image.fromarray(photo.transpose(1, 2, 0)).save(folder / f"{i}.png")

recipe = Ldc.recipes["small"]  # made tiny: leave out model, calibration and steps for a real run
data = replace(recipe.data, name="folder", path=str(out / "photos"), batch_size=16)
model, unit = replace(recipe.model, width=4), replace(recipe.calibration, epochs=20)
cfg = replace(recipe, data=data, model=model, calibration=unit, steps=20)
result = train("ldc", Ldc, "small", cfg, out / "run")
print(f"accuracy: {result['metrics']['final/mean/overall']:.1f} %")

system = tenfold.load(out / "run")
system.learn(out / "later", "")  # for this process only; `tenfold learn` keeps it in the run
print(*system.predict(out / "later", out / "predictions", PredictOptions(top=3)), sep="\n")

stage = next(system.stages())  # base training: a module, and its batches by index
optimiser = torch.optim.SGD(stage.model.train().parameters(), lr=0.01)
for step in range(3):
    loss = stage.model(stage.batches(step))["loss"]
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    print(f"step {step}: loss {loss.item():.3f}")
