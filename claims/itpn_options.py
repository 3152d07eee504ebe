"""What iTPN's options do: leak-free laterals, the teacher's value range, feature modelling.

    python claims/itpn_options.py [--epochs 2] [--seeds 3] [--runs runs/claims/itpn-options]

The main stage of HiViT pre-trained on pixels (an iTPN run of the claim, --teachers) is the CLIP
branch's teacher, since no CLIP weights are at hand: it learned without labels, on the same photos.
Every row pre-trains a new network for the same steps on `tiny_imagenet_20` and is probed frozen.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from tenfold.core import dist, log
from tenfold.report.markdown import md_table
from tenfold.runner import train
from tenfold.systems.itpn import Itpn
from tenfold.systems.itpn.config import Config
from tenfold.systems.itpn.recipes import SMALL

HERE = Path(__file__).parent
COLUMNS = {
    "accuracy/linear probe/top1": "linear probe, top-1",
    "accuracy/nearest neighbours/top1": "nearest neighbours, top-1",
    "overlap/localised/iou": "localised, mean IoU",
}


def rows(epochs: int, teacher: str) -> dict[str, Config]:
    """Name -> configuration."""
    pixel = replace(SMALL, tasks=("pretrain", "localise"))
    pixel = replace(pixel, pretrain=replace(pixel.pretrain, epochs=epochs))
    pixel = replace(pixel, finetune=replace(pixel.finetune, localise_epochs=epochs))
    clip = replace(
        pixel,
        model=replace(pixel.model, family="clip", layer_scale=0.1, bias="full", depths=(1, 1, 5)),
        pretrain=replace(pixel.pretrain, method="clip", teacher=teacher),
    )

    def with_(**changes: object) -> Config:
        return replace(clip, pretrain=replace(clip.pretrain, **changes))  # type: ignore[arg-type]

    return {
        "pixels (official)": pixel,
        "pixels and own features, EMA teacher": replace(
            pixel, pretrain=replace(pixel.pretrain, feature_weight=0.3)
        ),
        "tokens (official: laterals leak, range washed out)": clip,
        "tokens, leak-free": with_(leak_free=True),
        "tokens, correct range": with_(teacher_range="correct"),
        "tokens, leak-free, correct range": with_(leak_free=True, teacher_range="correct"),
    }


def write(found: dict[str, list[dict[str, float]]], epochs: int, environment: dict) -> None:
    """The two files."""
    seeds = len(next(iter(found.values())))
    environment["command"] = f"python claims/itpn_options.py --epochs {epochs} --seeds {seeds}"
    result = {"epochs": epochs, "rows": found, "environment": environment}
    (HERE / "itpn-options.json").write_text(json.dumps(result, indent=1) + "\n")
    cells = []
    for name, results in found.items():
        numbers = [[one[key] for one in results] for key in COLUMNS]
        spread = [f" ± {stdev(n):.1f}" if len(n) > 1 else "" for n in numbers]
        cells.append([name, *(f"{mean(n):.1f}{s}" for n, s in zip(numbers, spread, strict=True))])
    lines = [
        "# iTPN: what the options do",
        "",
        (__doc__ or "").split("\n\n")[2].strip().replace("\n", " "),
        "",
        f"{epochs} passes of pre-training and of localisation each, {seeds} seed(s), percent. "
        "Differences of a point or two are within the noise of 1000 test pictures.",
        "",
        *md_table(["pre-training", *COLUMNS.values()], cells),
        "",
        f"{environment['cpu']}, one thread, torch {environment['torch']}, "
        f"{environment['date']}, commit {environment['commit']}: `{environment['command']}`",
        "",
    ]
    (HERE / "itpn-options.md").write_text("\n".join(lines))


def main() -> None:
    """Train each row, and write the table beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/claims/itpn-options"))
    parser.add_argument("--teachers", type=Path, default=Path("runs/claims/itpn"))
    args = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(args.seeds):
        teacher = str(args.teachers / f"iTPN-seed{seed}")
        for number, (name, cfg) in enumerate(rows(args.epochs, teacher).items()):
            cfg = replace(cfg, seed=seed, loop=replace(cfg.loop, threads=1))
            result = train.train("itpn", Itpn, "options", cfg, args.runs / f"{number}-seed{seed}")
            found.setdefault(name, []).append(result["metrics"])
    with dist.started("cpu") as world:
        environment = log.environment(world)
    write(found, args.epochs, environment)
    print((HERE / "itpn-options.md").read_text())


if __name__ == "__main__":
    main()
