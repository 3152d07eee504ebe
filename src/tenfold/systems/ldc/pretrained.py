"""The encoder of weights that exist, taken as it is."""

from __future__ import annotations

from pathlib import Path

from tenfold.core import checkpoint

from .model import Network


def take_encoder(network: Network, path: Path) -> None:
    """Fill a network's encoder from a run folder or weights file, which must be of the same shape.

    Raises:
        FileNotFoundError: There are no such weights.
        ValueError: They are of another network.
    """
    file = path / "weights.safetensors" if path.is_dir() else path
    if not file.exists():
        raise FileNotFoundError(f"encoder {file} does not exist; give a run or its weights")
    given = checkpoint.read_tensors(file)
    wanted = {k: v for k, v in network.state_dict().items() if k.startswith("encoder.")}
    for key, value in wanted.items():
        if key not in given or given[key].shape != value.shape:
            has = tuple(given[key].shape) if key in given else "missing"
            raise ValueError(
                f"{file}: {key} is {has}, this model needs {tuple(value.shape)}; "
                "set --model.kind and --model.width as those weights have them"
            )
    for key, value in wanted.items():
        value.copy_(given[key])
