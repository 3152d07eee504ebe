"""DTS from Python, from two folders to an adapted network: `python examples/dts.py OUT`."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

import tenfold
from tenfold.generated import streets
from tenfold.runner.train import train
from tenfold.systems.dts import Dts, PredictOptions

out, size = Path(sys.argv[1]), (48, 64)
for name, style in (("rendered", streets.DAY), ("photos", streets.DUSK)):
    for kind in ("images", "masks"):
        (out / name / kind).mkdir(parents=True, exist_ok=True)
    for i in range(8):  # your images, and of the rendered ones index masks of the same names
        picture, labels = streets.scene(name, i, style=style, size=size)
        Image.fromarray(picture).save(out / name / "images" / f"{i}.png")
        Image.fromarray(labels).save(out / name / "masks" / f"{i}.png")
    (out / name / "classes.txt").write_text("\n".join(streets.NAMES))

recipe = Dts.recipes["small"]  # made tiny: leave out model, sizes and steps for a real run
folders = {"source_path": str(out / "rendered"), "target_path": str(out / "photos")}
sizes = {"source_size": size, "target_size": size, "crop": (32, 32), "batch_size": 2}
data = replace(recipe.data, source="folder", target="folder", **folders, **sizes)
model = replace(recipe.model, dims=(8, 8, 16, 16), depths=(1, 1, 1, 1), heads=(1, 1, 2, 2))
cfg = replace(recipe, data=data, model=model, source_steps=10, steps=5)
result = train("dts", Dts, "small", cfg, out / "run")
print("mIoU (%):", result["metrics"]["iou/deployed/mIoU"])

system = tenfold.load(out / "run")  # images in, labels, overlays, film and page out
files = system.predict(out / "photos" / "images", out / "predictions", PredictOptions(fps=5.0))
print(*files[-2:], sep="\n")

*_, stage = system.stages()  # adaptation: both students, and batches by index
optimiser = torch.optim.AdamW(stage.model.parameters(), lr=1e-3)
for step in range(3):
    optimiser.zero_grad()
    losses = stage.training_step(stage.model, stage.batches(step), lambda loss: loss.backward())
    optimiser.step()
    stage.after_step(step)  # the teachers follow
    print(f"step {step}: loss {float(losses['loss']):.3f}")
