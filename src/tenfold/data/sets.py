"""Every data set that tenfold knows, from the domains' own lists."""

from __future__ import annotations

from .captions import sets as captions
from .dataset import DataSet
from .images import sets as images
from .motion import sets as motion
from .text import sets as text
from .weather import sets as weather

SETS: dict[str, DataSet] = {
    entry.name: entry
    for entry in (*motion.SETS, *text.SETS, *weather.SETS, *images.SETS, *captions.SETS)
}
"""Every data set by name."""
