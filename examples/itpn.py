"""iTPN from Python, from own photos to answers: `python examples/itpn.py OUT`."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

import tenfold
from tenfold.generated import scenes
from tenfold.runner.train import train
from tenfold.systems.itpn import Itpn, PredictOptions

out = Path(sys.argv[1])
pictures, labels, _ = scenes.photos("example", 80, seed=0)
for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
    folder = out / "photos" / scenes.NAMES[label]  # your photos: a folder a class
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(folder / f"{i}.png")

recipe = Itpn.recipes["small"]  # made tiny: leave out model and steps for a real run
cfg = replace(
    recipe,
    tasks=("pretrain", "classify"),  # masked pixels first, then classes from what they taught
    data=replace(recipe.data, name="folder", path=str(out / "photos"), batch_size=16),
    model=replace(recipe.model, embed_dim=32, heads=1, depths=(1, 1, 2), fpn_dim=8),
    steps=20,
)
result = train("itpn", Itpn, "small", cfg, out / "run")
print("top-1 (%):", result["metrics"]["accuracy/fine-tuned/top1"])

system = tenfold.load(out / "run")  # photos in, table, sheets and page out
files = system.predict(out / "photos" / "ring", out / "predictions", PredictOptions(top=3))
print(*files, sep="\n")

stage = next(system.stages())  # pre-training: a module, and its batches by index
optimiser = torch.optim.AdamW(stage.model.parameters(), lr=1e-3)
for step in range(3):
    loss = stage.model(stage.batches(step))["loss"]
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    print(f"step {step}: loss {float(loss.detach()):.3f}")
