"""LDC on weak and strong encoders: when does it pay?

    python claims/ldc_encoders.py [--runs runs/claims/ldc-encoders]

The claim of ldc is of an encoder that was trained for 60 passes. Here the same encoder is trained
for 5, 20 and 120 passes, fixed before any run, with three seeds each; all else is the claim's, the
settings of LDC too, which were chosen once, at 60 passes, on base classes alone.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from tenfold.core.claim import Claim, Variant
from tenfold.runner.claim import measure
from tenfold.systems.ldc import Ldc, comparison
from tenfold.systems.ldc.config import Config
from tenfold.systems.ldc.recipes import SMALL

HERE = Path(__file__).parent
PASSES = (5, 20, 120)


def claims() -> list[Claim[Config]]:
    """The claims of ldc that are of the reference settings, for every length of training."""
    found = []
    for passes in PASSES:

        def named(variant: Variant[Config], passes: int = passes) -> Variant[Config]:
            return replace(variant, name=f"{variant.name}, {passes} passes")

        for one in comparison.claims(replace(SMALL, epochs=passes)):
            if one.method.name == "LDC (reference)":  # not of the official settings
                found.append(
                    replace(
                        one,
                        says=f"{one.says[:-1]}, encoder of {passes} passes.",
                        baseline=named(one.baseline),
                        method=named(one.method),
                        also=tuple(map(named, one.also)),
                    )
                )
    return found


def main() -> None:
    """Train what is missing, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/claims/ldc-encoders"))
    args = parser.parse_args()
    changes: dict[str, Any] = {"threads": 1}
    measure(
        "ldc-encoders", "ldc", Ldc, claims(), args.runs, HERE, changes,
        "python claims/ldc_encoders.py",
    )  # fmt: skip


if __name__ == "__main__":
    main()
