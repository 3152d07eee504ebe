"""The labelling page of APIS in a real browser: from a key to the redrawn mask and the next ring.

python benchmarks/apis_page.py               # writes benchmarks/results/apis_page.KIND.json and .md

`tenfold serve apis` runs as it does for a person, with a network of random weights, on drawn photos
of 256 pixels; Debian's Chromium answers by keyboard, yes and no in turns, through all objects of
all photos. An answer's time is the browser's: from the key until the mask of the object is drawn
with the next question; the request's time (server, its disk and network between them) is in it. The
first answer about each photo computes its features, and is counted apart. Run it on an idle
machine. No person is measured here: what an answer costs people is not the machine's time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parent))
import rates  # noqa: E402
from rates import RESULTS, machine, quartiles  # noqa: E402

from tenfold.report.claim import md_table  # noqa: E402
from tenfold.runner.weights import save_weights  # noqa: E402
from tenfold.systems.apis import Apis  # noqa: E402
from tenfold.systems.apis.config import Config  # noqa: E402
from tenfold.systems.apis.recipes import PAPER, SMALL  # noqa: E402

SIDE, PHOTOS, OBJECTS = 256, 4, 5
FLAGS = ["--no-sandbox", "--disable-background-networking"]
CASES: dict[str, Config] = {"small backbone": SMALL, "ResNet-50": PAPER}
LIMIT = 0.1
"""Seconds within which a redraw counts as at once."""
ANSWER = """async key => {
  const { timing } = tenfold, before = timing.redraws.length;
  const limit = performance.now() + 20000;
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  while (timing.redraws.length === before && performance.now() < limit) {
    await new Promise((go) => setTimeout(go, 1));
  }
  const every = performance.getEntriesByType("resource").map((e) => [e.name, e.duration / 1000]);
  performance.clearResourceTimings();
  const asked = every.filter(([name]) => name.endsWith("/answer"));
  if (!asked.length) throw new Error(document.querySelector("#said").textContent);
  return [timing.redraws.at(-1) / 1000, asked.at(-1)[1], every.length > asked.length];
}"""


def photos(folder: Path) -> dict[str, Any]:
    """Draw photos of ellipses; returns COCO's content with their boxes."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    content: dict[str, Any] = {
        "images": [], "annotations": [], "categories": [{"id": 1, "name": "thing"}],
    }  # fmt: skip
    for number in range(1, PHOTOS + 1):
        picture = draw.normal(110, 12, (SIDE, SIDE, 3))
        for _ in range(OBJECTS):
            wide, tall = draw.uniform(18, 48, 2)
            x, y = draw.uniform(50, SIDE - 50, 2)
            inside = ((columns - x) / wide) ** 2 + ((rows - y) / tall) ** 2 <= 1
            picture[inside] = draw.uniform(0, 255, 3) + draw.normal(0, 12, (inside.sum(), 3))
            box = [x - wide - 2, y - tall - 2, 2 * wide + 4, 2 * tall + 4]
            content["annotations"].append({
                "id": len(content["annotations"]) + 1, "image_id": number, "category_id": 1,
                "bbox": [round(float(value), 1) for value in box], "iscrowd": 0,
                "area": 1.0, "segmentation": [],
            })  # fmt: skip
        name = f"{number}.png"
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / name)
        size = {"width": SIDE, "height": SIDE, "file_name": name}
        content["images"].append({"id": number, **size})
    return content


def weights(cfg: Config, file: Path) -> None:
    """Random weights of a recipe's network, for photos as they are."""
    own = replace(cfg.data, name="folder", test_side=SIDE, longest=2 * SIDE)
    torch.manual_seed(0)
    system = Apis(replace(cfg, data=own, classes=("thing",)))
    save_weights(file, "apis", system)


def measured(cfg: Config, answers: int, threads: int) -> dict[str, Any]:
    """Serve, answer, and take the browser's times."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        boxes = folder / "boxes.json"
        boxes.write_text(json.dumps(photos(folder / "photos")))
        weights(cfg, folder / "weights.safetensors")
        command = [sys.executable, "-m", "tenfold", "serve", "apis", folder / "weights.safetensors",
                   "--images", folder / "photos", "--boxes", boxes, "--port", "0",
                   "--device", "cpu"]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
            try:
                assert child.stdout is not None
                return answered(child.stdout.readline().strip(), answers)
            finally:
                child.send_signal(signal.SIGINT)


def answered(address: str, answers: int) -> dict[str, Any]:
    """Times of answers in the browser, those that opened a photo apart."""
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(address)
        page.wait_for_selector("#yes:not(:disabled)")
        page.evaluate("document.querySelector('#answering').click()")
        rows = []
        for number in range(answers):
            rows.append(page.evaluate(ANSWER, "yn"[number % 2]))
        kept = page.evaluate("tenfold.numbers.answers")
        browser.close()
    assert kept == answers, f"{kept} of {answers} answers were kept"
    same = [row for row in rows if not row[2]]
    return {
        "answers": len(same),
        "redraw": quartiles([row[0] for row in same]),
        "request": quartiles([row[1] for row in same]),
        "longest": max(row[0] for row in same),
        "within the limit": sum(row[0] < LIMIT for row in same) / len(same),
        "with another photo": [row[0] for row in rows if row[2]],
    }


def page_of(result: dict[str, Any]) -> str:
    rows = []
    for name, case in result["cases"].items():
        low, middle, high = (1000 * value for value in case["redraw"])
        _, request, _ = (1000 * value for value in case["request"])
        moved = sorted(case["with another photo"])
        rows.append([
            name, str(case["answers"]), f"**{middle:.0f} ms** ({low:.0f}-{high:.0f})",
            f"{request:.0f} ms", f"{1000 * case['longest']:.0f} ms",
            f"{case['within the limit']:.0%}",
            f"{1000 * moved[len(moved) // 2]:.0f} ms ({len(moved)})" if moved else "",
        ])  # fmt: skip
    heads = ["network", "answers", "key to redraw", "of it the request", "longest", "under 100 ms",
             "with another photo"]  # fmt: skip
    return "\n".join([
        "# APIS: the labelling page, from a key to the redrawn mask and the next question",
        "",
        f"{rates.setting(result)} Headless Chromium. Photos of {SIDE} x {SIDE} "
        "pixels, random weights, answers by a script: these are seconds of the machine, not of "
        "people. Median (quartiles); a redraw holds the answer's way to the disk, the object's "
        "quick update, the choice of the next pixel and the drawing. Answers after which another "
        "photo is shown, which may have to be encoded first, are counted apart.",
        "",
        *md_table(heads, rows, words=1),
        "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=tuple(CASES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    before = machine()  # its load is that before the run
    names = [args.only] if args.only else list(CASES)
    result = {
        "cases": {name: measured(CASES[name], args.answers, args.threads) for name in names},
        **before,
        "command": f"python benchmarks/apis_page.py --answers {args.answers}",
    }
    rates.write("apis_page", result, page_of(result), args.out)


if __name__ == "__main__":
    main()
