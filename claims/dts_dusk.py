"""DTS from day to dusk: CamVid's sequences of daylight to the one that was filmed at dusk.

    python claims/dts_dusk.py [--runs runs/claims/dts-dusk] [--threads 1]

Both sides are real and labelled. The source has the labels of the three sequences in daylight
(0006R0, 0016E5, Seq05VD), of all splits; the target is 0001TP, whose 62 images of the training
split are seen without labels and whose 62 of the test split are measured.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from tenfold.core.claim import Claim
from tenfold.data import catalog
from tenfold.report.claim import claim_lines
from tenfold.runner.claim import measure
from tenfold.systems.dts import Dts, claims
from tenfold.systems.dts.config import Config

HERE = Path(__file__).parent
DUSK = "0001TP"


def divided(camvid: Path, out: Path) -> Path:
    """Write the images of day and dusk as two sets in CamVid's layout; returns their folder."""
    whole = out / "camvid-day-and-dusk"
    if whole.is_dir():
        return whole
    made = out / "camvid.tmp"
    for split in ("train", "val", "test"):
        for part in (split, f"{split}annot"):
            for file in sorted((camvid / part).iterdir()):
                is_dusk = file.name.startswith(DUSK)
                # by day all are for training; the reader wants a test split, which is not used
                places = [part] if is_dusk else [part.replace(split, "train")]
                if split == "test" and not is_dusk:
                    places.append(part)
                for place in places:
                    folder = made / ("dusk" if is_dusk else "day") / place
                    folder.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, folder / file.name)
    made.rename(whole)
    return whole


def moved(config: Config, sets: Path) -> Config:
    """The configuration of a row of the claim, from day to dusk."""
    is_oracle = config.data.source == config.data.target
    data = replace(
        config.data,
        source="camvid",
        source_path=str(sets / ("dusk" if is_oracle else "day")),
        target="camvid",
        target_path=str(sets / "dusk"),
    )
    return replace(config, data=data)


def of_dusk(sets: Path) -> list[Claim[Config]]:
    """The claims of the system, with the rows that are not measured here left out."""
    few = (claims.STATISTICS, claims.ORACLE)
    found = []
    for claim in claims.claims():
        arms: dict[str, Any] = {
            role: replace(arm, config=moved(arm.config, sets))
            for role, arm in (("baseline", claim.baseline), ("method", claim.method))
        }
        if {claim.baseline.name, claim.method.name} <= {arm.name for arm in claims.BY_DUSK}:
            also = tuple(replace(arm, config=moved(arm.config, sets)) for arm in few)
            found.append(replace(claim, **arms, also=also, paper=None))
    return found


def main() -> None:
    """Train every row with every seed, and write the table beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/claims/dts-dusk"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    sets = divided(catalog.find_or_explain("camvid"), args.runs.resolve())
    loop = {"threads": args.threads, "device": "cpu"}
    results = measure("dts-dusk", "dts", Dts, of_dusk(sets), args.runs, HERE, loop)
    print("\n".join(claim_lines(results)))


if __name__ == "__main__":
    main()
