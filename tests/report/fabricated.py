"""Run folders whose numbers are made up, for tests of the pages only."""

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image

ACTIONS = ("walking", "running", "washing the windows")
TIMES = ("1000ms", "80ms", "160ms", "320ms", "400ms")

CONFIG = {
    "steps": 300,
    "points": {"seed": 12345},
    "seed": 0,
    "model": {"width": 64, "bands": 5, "kind": "<script>alert('config')</script>"},
    "data": {"name": "walker", "past": 10, "subjects": [1, 2, 3], "path": ""},
    "optim": {"lr": 5e-4, "betas": [0.9, 0.999], "clip": {"norm": 1.0, "kind": "total"}},
}


def metrics(scale: float, salt: int = 0) -> dict[str, float]:
    """Errors that grow with the horizon; `scale` sets how good the made-up method is."""
    noise = np.random.default_rng(salt)
    flat = {
        f"mpjpe/{action}/{time}": scale * int(time[:-2]) ** 0.7 * (1 + 0.1 * noise.random())
        for action in ACTIONS
        for time in TIMES
    }
    for time in TIMES:
        flat[f"mpjpe/{time}"] = sum(flat[f"mpjpe/{a}/{time}"] for a in ACTIONS) / 3
    return {**flat, "accuracy": 0.9 / scale, "seconds_a_window": 0.00123 * scale}


def log_lines(steps: int = 300, stages: tuple[str, ...] = ("train",), salt: int = 0) -> list[dict]:
    noise, lines = np.random.default_rng(salt), []
    for i, stage in enumerate(stages):
        for step in range(1, steps + 1):
            loss = (100 / (i + 1)) * math.exp(-step / 60) + 2 + noise.normal() * 0.4
            lines.append(
                {
                    "stage": stage,
                    "step": step,
                    "split": "train",
                    "loss": loss,
                    "loss/xyz": 0.8 * loss,
                    "loss/bones": 0.2 * loss,
                    "lr": 5e-4 * (0.5 + 0.5 * math.cos(math.pi * step / steps)),
                    "grad_norm": abs(3 + noise.normal()),
                }
            )
            if step % 30 == 0:
                values = metrics(0.6 + math.exp(-step / 60), step)
                lines.append(
                    {
                        "stage": stage,
                        "step": step,
                        "split": "validation",
                        "loss": loss * 1.1,
                        **values,
                    }
                )
    return lines


def write_run(
    folder: Path,
    *,
    kind: str = "generated",
    scale: float = 0.7,
    config: dict | None = None,
    stages: tuple[str, ...] = ("train",),
    system: str = "spgsn",
    salt: int = 0,
) -> Path:
    """A finished run."""
    (folder / "pictures").mkdir(parents=True)
    lines = log_lines(stages=stages, salt=salt)
    dump = {
        "config.json": {"system": system, "recipe": "demo", "config": config or CONFIG},
        "environment.json": {
            "tenfold": "0.1.0",
            "python": "3.11.9",
            "torch": "2.13.0",
            "platform": "Linux-6.1 <b>x86</b>",
            "cpu": "made-up CPU",
            "cores": 2,
            "threads": 1,
            "device": "cpu",
            "world_size": 1,
            "commit": "0123456789abcdef0123",
            "command": f"tenfold train {system} demo --model.width 64",
            "date": "2026-10-01T12:00:00",
        },
        "result.json": {
            "system": system,
            "recipe": "demo",
            "data": {
                "name": "walker",
                "kind": kind,
                "note": "Numbers fabricated by tests/report/fabricated.py.",
            },
            "seconds": 61.2,
            "parameters": 415320,
            "stages": [
                {
                    "name": stage,
                    "steps": 300,
                    "seconds": 50.1,
                    "best": {"step": 270, "metric": "mpjpe/400ms", "value": 41.2},
                }
                for stage in stages
            ],
            "metrics": metrics(scale),
            "baselines": {"repeat last pose": metrics(1.0), "constant velocity": metrics(0.75, 1)},
            "better": {"mpjpe": "lower", "accuracy": "higher", "seconds_a_window": "lower"},
            "units": {"mpjpe": "mm"},
            "notes": ["protocol: all windows", "<script>alert('note')</script> & friends"],
        },
    }
    for name, value in dump.items():
        (folder / name).write_text(json.dumps(value))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    y, x = np.mgrid[0:180, 0:240]
    picture = np.stack([x, y, (x + y) % 255], -1).clip(0, 255).astype(np.uint8)
    Image.fromarray(picture).save(folder / "pictures/gradient_10.png")
    Image.fromarray(picture[::-1]).save(folder / "pictures/gradient_9.png")
    (folder / "pictures/circle.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" width="240">'
        '<circle cx="4" cy="4" r="3" fill="#0072B2"/></svg>'
    )
    (folder / "pictures/captions.json").write_text(
        json.dumps({"gradient_9.png": 'A gradient, "upside" <down>'})
    )
    return folder
