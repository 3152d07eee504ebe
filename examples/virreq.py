"""ViRReq from Python, from labels of wholes and parts to trees: `python examples/virreq.py OUT`."""

import sys
from dataclasses import replace
from pathlib import Path

from PIL import Image

import tenfold
from tenfold.data.images.decode import read_picture
from tenfold.generated import dolls
from tenfold.runner.train import train
from tenfold.systems.virreq import data
from tenfold.systems.virreq.config import PredictOptions
from tenfold.systems.virreq.recogniser import TrainedRecogniser
from tenfold.systems.virreq.requests import Recognition
from tenfold.systems.virreq.system import Virreq

out = Path(sys.argv[1])
(out / "photos").mkdir(parents=True, exist_ok=True)
for number in range(3):  # your pictures
    Image.fromarray(dolls.pair("example", number)[0]).save(out / "photos" / f"{number}.png")

recipe = Virreq.recipes["demo"]  # made tiny: leave out sizes and steps, or take "small"
separate = replace(recipe.separate, steps=4, batch_size=2)
small = replace(recipe.data, generated=(16, 4), labelled=0.5)
cfg = replace(recipe, data=small, separate=separate, steps=10)
result = train("virreq", Virreq, "demo", cfg, out / "run")
print("mean IoU of parts (%):", result["metrics"]["iou/parts/mIoU"])

system = tenfold.load(out / "run")  # pictures in, trees and a page out
files = system.predict(out / "photos", out / "predictions", PredictOptions(depth=2))
print(*files[-2:], sep="\n")

recogniser = TrainedRecogniser(system.model, data.knowledge_of(system.cfg))  # or one by one
photo = read_picture(out / "photos" / "0.png")
asked = Recognition(recogniser.open(photo), recogniser.kb)
for unit in asked.recognise(names=["doll", "cart"]).units:
    print(unit.id, unit.name, [part.name for part in asked.recognise(unit.id).units])
