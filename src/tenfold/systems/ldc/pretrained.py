"""The encoder of weights that exist, taken as it is."""

from __future__ import annotations

from pathlib import Path

from . import encoders
from .model import Network


def take_encoder(network: Network, path: Path, kind: str) -> None:
    """Fill a network's encoder from a run or a weights file, which must be of the same shape.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: They are of another network.
    """
    wanted = network.encoder.state_dict()
    given = encoders.state_of(path, kind, wanted)
    for key, value in wanted.items():
        value.copy_(given[key])
