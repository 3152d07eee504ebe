"""Official names for the tensors of our modules, and tables of positions for other sizes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tenfold.nn.hivit import square_grid
from tenfold.nn.position import resize_bias, resize_position

CLASS_ROWS = 3
"""Rows that a bias table has more where there is a class token."""


def official_keys(module: nn.Module) -> dict[str, str]:
    """Official name -> ours: a backbone's tensors lie on top there, beside decoder and head."""
    found: dict[str, str] = {}
    for name in module.state_dict():
        key = name.removeprefix("backbone.")
        assert key not in found, key
        found[key] = name
    return found


def resized(
    state: Mapping[str, Tensor], target: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """The state with tables of positions as large as the target's, bicubic, as official loaders do.

    The official fine-tuning on pixels looks for `pos_embed`, which its model does not have, so that
    only the stored size loads there.
    """
    found, has_token = dict(state), "cls_token" in target
    for key, value in state.items():
        wanted = target.get(key)
        if wanted is None or tuple(value.shape) == tuple(wanted) or len(wanted) != value.ndim:
            continue
        if key.endswith("pos_embed") and value.shape[2] == wanted[2]:
            first, rest = value[:, : int(has_token)], value[:, int(has_token) :]
            grids = [square_grid(n) for n in (rest.shape[1], wanted[1] - int(has_token))]
            found[key] = torch.cat([first, resize_position(rest, *grids)], 1)
        elif key.endswith("relative_position_bias_table") and value.shape[1] == wanted[1]:
            extra = CLASS_ROWS if has_token else 0
            own, last = value[: len(value) - extra], value[len(value) - extra :]
            sides = [(square_grid(n)[0] + 1) // 2 for n in (len(own), wanted[0] - extra)]
            grids = [(side, side) for side in sides]
            found[key] = torch.cat([resize_bias(own, *grids), last])
        elif key.endswith(("rel_pos_h", "rel_pos_w")) and value.shape[1] == wanted[1]:
            found[key] = F.interpolate(value.T[None], size=wanted[0], mode="linear")[0].T
    return found
