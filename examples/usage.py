"""USAGE from Python, from labels of whole pictures to masks: `python examples/usage.py OUT`."""

import csv
import sys
from dataclasses import replace
from pathlib import Path

from PIL import Image

import tenfold
from tenfold.generated import shapes_wsss
from tenfold.runner.train import train
from tenfold.systems.usage import PredictOptions, Usage

out = Path(sys.argv[1])
(out / "photos").mkdir(parents=True, exist_ok=True)
with (out / "photos" / "labels.csv").open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["file", "labels"])
    for item in shapes_wsss.open_set("example", 16).items:  # your pictures, and what is in them
        Image.fromarray(item.held[0]).save(out / "photos" / f"{item.name}.png")
        names = [shapes_wsss.NAMES[label] for label in item.labels]
        table.writerow([f"{item.name}.png", ";".join(names)])

recipe = Usage.recipes["demo"]  # made tiny: leave out sizes and steps, or take "small"
data = replace(recipe.data, name="folder", path=str(out / "photos" / "labels.csv"), batch_size=4)
threshold = replace(recipe.threshold, how="fixed", fixed=0.4)  # nobody drew a mask to choose by
segment = replace(recipe.segment, steps=4, batch_size=4)
cfg = replace(recipe, data=data, threshold=threshold, segment=segment, steps=8)
result = train("usage", Usage, "demo", cfg, out / "run")
print("mAP of the classifier (%):", result["metrics"]["classifier/test/mAP"])
print(len(list((out / "run" / "work" / "masks").glob("*.png"))), "pseudo masks")

system = tenfold.load(out / "run")  # pictures in, masks, heat maps and a page with a slider out
files = system.predict(out / "photos", out / "predictions", PredictOptions(shown=4))
print(*files[-2:], sep="\n")
