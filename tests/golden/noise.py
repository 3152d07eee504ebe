"""Which gradients are nothing but rounding, which Adam's first step makes lr times a sign."""

from __future__ import annotations

import numpy as np

SURE = 1e-6
"""Gradients below this may be rounding noise in float32."""


def is_noise(got, want: np.ndarray) -> np.ndarray:
    """Where a parameter's first Adam step is not determined by its gradient.

    That is where the gradient is tiny on both sides, and not exactly 0 on both: an attention key's
    bias has none in exact arithmetic, and either side may happen to find 0 or any rounding. Where
    both find 0 (an expert without tokens) the step is known. A gradient that is tiny on one side
    only is a difference, and is not left out.
    """
    got = np.asarray(got.detach().cpu() if hasattr(got, "detach") else got)
    tiny = (np.abs(got) < SURE) & (np.abs(want) < SURE)
    return tiny & ((got != 0) | (want != 0))
