"""Writes claims/<system>-long.{json,md,png} from a finished long run.

tenfold train spgsn long && python claims/long_run.py runs/spgsn-long
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tenfold.viz import plots

HERE = Path(__file__).parent
PEER = {
    "basketball": (9.53, 17.53, 35.32, 44.23, 59.41, 84.14),
    "jumping": (13.93, 27.78, 55.80, 69.01, 91.65, 125.60),
    "running": (12.69, 23.18, 38.31, 42.24, 44.98, 51.71),
    "soccer": (11.09, 20.63, 39.48, 48.72, 65.41, 99.98),
    "walking": (6.23, 10.34, 16.84, 19.76, 25.06, 33.93),
    "washwindow": (4.63, 9.16, 20.87, 27.35, 39.70, 65.69),
}
"""PGBIG (705062791/PGBIG @ 8deba3b, the csv in its repository): full training, all 8 actions."""


def main() -> None:
    """Read the run, write the three files."""
    run = Path(sys.argv[1])
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    environment = json.loads((run / "environment.json").read_text())
    config = json.loads((run / "config.json").read_text())["config"]
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    name = f"{result['system']}-long"
    losses = [(h["step"], h["loss"]) for h in history if h["split"] == "train"]
    held_out = [(h["step"], h["mpjpe"]) for h in history if h["split"] == "validation"]
    picture = plots.curves(
        {
            "training loss": ([s for s, _ in losses], [v for _, v in losses]),
            "held-out error": ([s for s, _ in held_out], [v for _, v in held_out]),
        },
        ylabel="mm, mean over frames",
        window=9,
        log=True,
    )
    (HERE / f"{name}.png").write_bytes(picture)
    kept = {
        "result": result,
        "environment": environment,
        "config": config,
        "curve": {"training loss": losses, "held-out error": held_out},
    }
    (HERE / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    (HERE / f"{name}.md").write_text("\n".join(page(result, environment, config)))


def page(result: dict[str, Any], environment: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """The Markdown page."""
    stage = result["stages"][0]
    windows = stage["steps"] * config["data"]["batch_size"]
    labels = {key: title for key, title in result["labels"].items() if "/" not in key}
    titles = {"average": f"average; long-horizon model ({config['data']['future']} frames)"}
    titles["average"] += ", best on validation"
    titles |= {
        key.split("/")[1]: title for key, title in result["labels"].items() if key.count("/") == 1
    }
    is_last = stage["best"]["step"] == stage["steps"]
    head = "| | " + " | ".join(labels.values()) + " |"
    lines = [
        f"# {result['system']}: one run of the published size",
        "",
        f"{result['parameters']:,} parameters (width {config['model']['width']}, "
        f"{config['model']['num_blocks']} blocks), {stage['steps']} steps of "
        f"{config['data']['batch_size']} windows = {windows / 15818:.1f} passes over the 15,818 "
        f"training windows at hand (the official setting is 50), {stage['seconds'] / 60:.0f} min "
        "on one busy core. Recipe `long`: milder regularisation, a faster rate than the paper's, "
        f"because the run is short. One seed. Data: {result['data']['name']}, "
        f"{result['data']['kind']}, which lacks 8 of the benchmark's training files (most of "
        "directing_traffic, all of washwindow).",
        "",
        f"Best held-out error {stage['best']['value']:.1f} mm at step {stage['best']['step']}; "
        "those weights were measured on the test split, once."
        + (" They are the last weights, too: a row of those would have the same numbers." * is_last)
        + " All columns are of one model of long horizon; on Human3.6M papers train another one "
        "for 80 to 400 ms.",
        "",
        f"MPJPE in mm, {result['data']['note']}:",
        "",
        head,
        "|---" * (len(labels) + 1) + "|",
    ]
    rows = dict.fromkeys(k.split("/")[1] for k in result["metrics"])
    still = result["baselines"]["repeat last pose"]
    for row in rows:
        mine = titles.get(row, row)
        for who, values in ((mine, result["metrics"]), ("repeat last pose", still)):
            cells = [f"{values[f'mpjpe/{row}/{label}']:.2f}" for label in labels]
            lines.append(f"| {who} | " + " | ".join(cells) + " |")
        peer = PEER.get(row.removesuffix(" (never trained)"))
        if peer:
            cells = [f"{v:.2f}" for v in peer]
            lines.append("| PGBIG, trained in full | " + " | ".join(cells) + " |")
    return [
        *lines,
        "",
        "PGBIG's figures (705062791/PGBIG @ 8deba3b, the csv in its repository) are of a "
        "comparable network with the whole training set and schedule: they say how far a full run "
        "goes, not who is better.",
        "",
        f"![Training loss and held-out error]({result['system']}-long.png)",
        "",
        f"{environment['cpu']}, {environment['cores']} cores, 1 thread, torch "
        f"{environment['torch']}, {environment['date']}, commit {environment['commit']}, "
        f"`{environment['command']}` then `python claims/long_run.py runs/spgsn-long`.",
        "",
    ]


if __name__ == "__main__":
    main()
