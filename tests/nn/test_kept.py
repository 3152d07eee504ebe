"""Constants that are kept, before and after an export."""

import torch
from torch import nn

from tenfold.nn.kept import kept

calls = []


@kept(4)
def places(count: int, *, first: int = 0) -> torch.Tensor:
    calls.append(count)
    return torch.arange(first, first + count)


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.arange(8.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table[places(5)]


def test_constants_are_made_once() -> None:
    calls.clear()
    assert places(3, first=2) is places(3, first=2)
    assert places(3, first=2).tolist() == [2, 3, 4]
    assert calls == [3]


def test_what_an_export_makes_is_not_kept() -> None:
    """The first call is the export's; kept, its constant would be garbage for the next."""
    network, x = Shifted(), torch.zeros(5)
    exported = torch.export.export(network, (x,))
    assert torch.equal(network(x), torch.arange(5.0))
    assert torch.equal(exported.module()(x), torch.arange(5.0))
