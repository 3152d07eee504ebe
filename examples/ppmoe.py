"""Train a mixture of experts on a text, measure it, let it write, use its network in a loop.

python examples/ppmoe.py OUT
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

import tenfold
from tenfold.runner.train import train
from tenfold.systems.ppmoe import Ppmoe, PredictOptions

out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
text = out / "squares.txt"  # your own: a UTF-8 file, or a folder of them
text.write_text("".join(f"{i} times {i} is {i * i}\n" for i in range(3000)))

small = Ppmoe.recipes["small"]  # made smaller: two blocks, one with four experts; tokens are bytes
model = replace(small.model, layers=2, hidden=32, heads=2, seq=64, experts=4)
data = replace(small.data, name="files", path=str(text), eval_windows=64)
cfg = replace(small, model=model, data=data, steps=100)
train("ppmoe", Ppmoe, "small", cfg, out / "run")  # weights, metrics and report.html

system = tenfold.load(out / "run")
print(f"{system.evaluate('test').metrics['bits/mean/per byte']:.2f} bits per byte of unseen text")
(out / "prompt.txt").write_text("2998 times 2998 is")
options = PredictOptions(tokens=60, temperature=0.5)
written = system.predict(out / "prompt.txt", out / "predictions", options)
print("Which expert took which character:", written[-1])

batches, network = next(system.stages()).batches, system.model.train()
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
for step in range(3):
    tokens = batches(step)["tokens"]  # (row, time); the network gives (row, time, vocabulary)
    loss = F.cross_entropy(network(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step}: {loss:.3f} nats a byte")
