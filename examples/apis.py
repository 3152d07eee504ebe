"""APIS from Python, from boxes and answers to masks: `python examples/apis.py OUT`."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from PIL import Image

import tenfold
from tenfold.generated import hollows
from tenfold.runner.train import train
from tenfold.systems.apis import Apis, PredictOptions

out = Path(sys.argv[1])
recipe = Apis.recipes["demo"]  # made tiny: leave out sizes and steps, or take "small"
points = replace(recipe.points, rounds=1, strategy="topk_random")  # one random point, one chosen
data = replace(recipe.data, generated=(8, 4), batch_size=2)  # yours: name="folder", path=...
cfg = replace(recipe, data=data, points=points, steps=8, round_steps=4)
result = train("apis", Apis, "demo", cfg, out / "run")
print("mean IoU in true boxes (%):", result["metrics"]["given/final/IoU"])

answers = (out / "run" / "work" / "rounds" / "answers.jsonl").read_text().splitlines()
print(len(answers), "answers, the last one:", json.loads(answers[-1]))

(out / "photos").mkdir(parents=True, exist_ok=True)
for number in range(2):
    picture = hollows.picture("example", number).picture
    Image.fromarray(picture).save(out / "photos" / f"{number}.png")
system = tenfold.load(out / "run")  # pictures in, masks, COCO results and a page out
files = system.predict(out / "photos", out / "predictions", PredictOptions(score=0.05))
print(*files[-2:], sep="\n")
