"""The sign of interactions: patches of one object under three scores, as a picture.

python examples/loupe_signs.py OUT writes OUT/loupe_signs.png: interactions J(R) on made-up tokens
of 7 x 7 patches, of which eight are of the object that the text names. In one picture these all
look like the text; in the other they have it in common and differ in the rest, which cancels in a
sum.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from tenfold.systems.loupe import scores
from tenfold.systems.loupe.games import Sampling, sampled
from tenfold.viz import plots

torch.manual_seed(0)
text, other = F.normalize(torch.randn(2, 32), dim=1)  # the words of the caption
rest = 4 * F.normalize(torch.randn(4, 32), dim=1)
objects = {"alike": text + 0.1 * torch.randn(8, 32), "completing": text + torch.cat([rest, -rest])}
regions = torch.zeros(2, 7, 7, dtype=torch.bool)
regions[0, 1:3, 1:5] = True
regions[1, 4:6, 2:6] = True

found: dict[str, dict[str, float]] = {}
for kind, tokens in objects.items():
    grid = F.normalize(torch.randn(7, 7, 32), dim=2)
    grid[1:3, 1:5] = F.normalize(tokens, dim=1).unflatten(0, (2, 4))
    patches = grid.flatten(0, 1)
    alike = scores.similarities(patches, torch.stack([text, other]))
    games = {
        "finest, absent patches 0": scores.fine_zero(alike),
        "finest, of the kept patches": scores.fine_drop(alike),
        "cosine of the sum": scores.global_cosine(patches, text),
    }
    for name, score in games.items():
        one = sampled.interactions(score, regions.flatten(1), Sampling(samples=4096))
        print(kind, name, one.value.tolist(), one.standard_error.tolist())
        largest = float(one.value.abs().max())
        places = (f"{kind}: object", f"{kind}: ground")
        found.setdefault(name, {}).update(zip(places, (one.value / largest).tolist(), strict=True))
out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
title = "J(R), scaled"
(out / "loupe_signs.png").write_bytes(plots.bars(found, ylabel=title, size=(7.0, 3.3)))
