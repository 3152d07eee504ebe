"""LOUPE from Python, from captions to regions of phrases: `python examples/loupe.py OUT`."""

import sys
from dataclasses import replace
from pathlib import Path

from PIL import Image

import tenfold
from tenfold.generated import captioned
from tenfold.runner.train import train
from tenfold.systems.loupe.answer import Asked
from tenfold.systems.loupe.config import PredictOptions
from tenfold.systems.loupe.system import Loupe

out = Path(sys.argv[1])
recipe = Loupe.recipes["demo"]  # made tiny: leave out sizes and steps, or take "small"
data = replace(recipe.data, generated=(32, 8), batch_size=8)  # yours: name="folder", path=...
image = replace(recipe.image, size=32, dim=16)
games = replace(recipe.games, samples=8, regions=3)
cfg = replace(recipe, data=data, image=image, games=games, steps=10)
result = train("loupe", Loupe, "demo", cfg, out / "run")
print("recall both ways, summed:", result["metrics"]["retrieval/both/rsum"])
print("accuracy of phrases at IoU 0.3 (%):", result["metrics"]["grounding/regions/acc@0.3"])

scene = captioned.captioned("example", 0)
(out / "photos").mkdir(parents=True, exist_ok=True)
Image.fromarray(scene.picture).save(out / "photos" / "0.png")
system = tenfold.load(out / "run")  # pictures and a text in; regions, heat maps and a page out
options = PredictOptions(caption=scene.caption)
print(*system.predict(out / "photos", out / "predictions", options)[-2:], sep="\n")

asked = Asked(system.model, system.cfg)  # or one by one
answer = asked.answer(scene.picture, scene.caption, count=3)
for region in answer.regions:
    print(f"s {region.confidence:.2f}, J {region.interaction:+.4f} +- {region.standard_error:.4f}")
for phrase in answer.phrases:
    print(phrase.text, [round(side, 2) for side in phrase.box])
