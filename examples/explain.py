"""Who acts together, in any score and in any dual encoder: `python examples/explain.py OUT`."""

import re
import sys
from pathlib import Path

import numpy as np
import torch

from tenfold.core.capabilities import PictureParts, SentenceParts
from tenfold.systems.loupe import games
from tenfold.systems.loupe.explain import ExplainOptions, explain, judge, page

# Any function of coalitions is a game: three players are worth something only together.
table = games.exact.table(lambda masks: masks[:, :3].all(1) + 0.5 * masks.float().mean(1), 6)
region = torch.tensor([[True, True, True, False, False, False]])
print("Shapley values:", games.exact.values(table).numpy().round(2))
print("J of the three:", games.exact.interactions(table, region).item())

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "grey": (0.6, 0.6, 0.6)}


class ByColour:  # yours: two encoders of which parts can be left out
    name, scale = "mean colours", 10.0

    def picture(self, photo):
        patches = torch.tensor(photo / 255).unfold(0, 16, 16).unfold(1, 16, 16).mean((3, 4))
        rows, columns, window = *patches.shape[:2], (0.0, 0.0, photo.shape[1], photo.shape[0])
        flat = patches.flatten(0, 1).float()
        return PictureParts((rows, columns), window, lambda kept: kept.float() @ flat + 0.01)

    def sentence(self, text):
        words = tuple(re.findall(r"\w+", text))
        means = torch.tensor([COLOURS.get(word, (0.1, 0.1, 0.1)) for word in words])
        return SentenceParts(words, lambda kept: kept.float() @ means + 0.01)


photo = np.full((64, 96, 3), 150, np.uint8)
photo[16:48, 16:32], photo[16:48, 64:80] = (220, 20, 20), (20, 20, 220)
options = ExplainOptions(against=("a green wall",), box="16,16,32,48", pictures=128)
match = explain(ByColour(), photo, "red beside blue", options)
found = match.explanation
best = found.pairs.value.argmax(0)  # of each word the patch with which it gains most
print({word: divmod(int(i), 6) for word, i in zip(found.words, best, strict=True)})
print(page.answer(found, found.box))
page.write(Path(sys.argv[1]), "squares", photo, found, judge(match))
