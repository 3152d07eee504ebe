"""The interface of earth2studio's prognostic models, as its workflows use it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pytest
import torch

from tenfold.data.weather.grid import Grid
from tenfold.systems.pangu.earth2studio import Prognostic

GRID = Grid(
    ("z", "t"), (850, 500), ("msl", "u10", "t2m"), (), (45.0, 0.0, -45.0), (0.0, 120.0, 240.0)
)


@runtime_checkable
class Published(Protocol):
    """What earth2studio asks of a model (models/px/base.py)."""

    def __call__(self, x, coords): ...
    def create_iterator(self, x, coords): ...
    def input_coords(self): ...
    def output_coords(self, input_coords): ...
    def to(self, device): ...


class Counting:
    """Adds its hours to every field, and knows what it was asked."""

    leads, device = (24, 6), torch.device("cpu")

    def __init__(self) -> None:
        self.calls: list[int] = []

    def step(self, upper: torch.Tensor, surface: torch.Tensor, lead: int) -> Any:
        assert upper.shape[1:] == (2, 2, 3, 3) and surface.shape[1:] == (3, 3, 3)
        self.calls.append(lead)
        return upper + lead, surface + lead

    def missing_points(self) -> Any: ...
    def deviations(self) -> Any: ...
    def land_share(self) -> Any: ...
    def digest(self) -> str:
        return ""


def deterministic(model: Published, times: int, steps: int) -> tuple[dict, np.ndarray]:
    """States of a forecast, put together as `earth2studio.run.deterministic` does."""
    model = model.to("cpu")
    first = model.input_coords()
    total = model.output_coords(model.input_coords()).copy()
    for key, value in list(total.items()):
        if value.shape == (0,):
            del total[key]
    leads = [model.output_coords(model.input_coords())["lead_time"] * k for k in range(steps + 1)]
    total["lead_time"] = np.asarray(leads).flatten()
    coords = OrderedDict(time=np.arange(times).astype("datetime64[h]"))
    coords.update((name, first[name]) for name in ("lead_time", "variable", "lat", "lon"))
    x = torch.arange(times * 7 * 9.0).reshape(times, 1, 7, 3, 3)
    found = []
    for k, (state, at) in enumerate(model.create_iterator(x, coords)):
        assert list(at) == ["time", "lead_time", "variable", "lat", "lon"]
        assert at["lead_time"][-1] == total["lead_time"][k]
        found.append(state.numpy())
        if k == steps:
            break
    return total, np.concatenate(found, axis=1)


def test_the_published_interface() -> None:
    counting = Counting()
    model = Prognostic(counting, GRID)
    assert isinstance(model, Published)
    total, found = deterministic(model, times=2, steps=9)
    assert total["variable"].tolist() == ["z850", "z500", "t850", "t500", "msl", "u10m", "t2m"]
    hours = (total["lead_time"] / np.timedelta64(1, "h")).tolist()
    assert hours == [6 * k for k in range(10)]
    start = np.arange(2 * 7 * 9.0, dtype=np.float32).reshape(2, 1, 7, 3, 3)
    assert np.array_equal(found, start + np.array(hours, np.float32)[:, None, None, None])
    assert counting.calls == [6, 6, 6, 24, 6, 6, 6, 24, 6]  # the longest that divides the hour
    one, at = model(torch.from_numpy(start), OrderedDict(time=np.zeros(2), **without_batch(model)))
    assert torch.equal(one, torch.from_numpy(start) + 6) and at["lead_time"][
        0
    ] == 6 * np.timedelta64(1, "h")
    assert Prognostic(counting, GRID, 24).leads == (24,)


def without_batch(model: Prognostic) -> dict[str, np.ndarray]:
    return {name: values for name, values in model.input_coords().items() if name != "batch"}


def test_what_it_refuses() -> None:
    model = Prognostic(Counting(), GRID)
    with pytest.raises(ValueError, match="steps of 12 h need a model of 12 h"):
        Prognostic(Counting(), GRID, 12)
    wrong = {
        "variable": (np.array(["z850"] * 7), "variable is .* but the model has"),
        "lat": (np.array([-45.0, 0.0, 45.0]), "lat is .*regrid"),
        "lead_time": (np.array([0, 6], "timedelta64[h]"), "2 lead times"),
    }
    for name, (values, words) in wrong.items():
        with pytest.raises(ValueError, match=words):
            model.output_coords(OrderedDict(model.input_coords(), **{name: values}))
    with pytest.raises(ValueError, match="the last axes are"):
        model.output_coords(OrderedDict(reversed(model.input_coords().items())))
