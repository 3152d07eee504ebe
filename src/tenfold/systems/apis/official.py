"""Published files of CondInst and BoxInst (AdelaiDet), and of ImageNet's backbones.

These are ResNet-50 (detectron2) and EfficientNet-Lite0.

Every tensor of a file and of the network is accounted for: taken, left out for a reason, or named
as unused, missing or of another shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tenfold.nn.condinst import CondInst, Settings
from tenfold.nn.dynamic_masks import DynamicHead
from tenfold.nn.encoders import LiteEncoder
from tenfold.weights import efficientnet
from tenfold.weights.condinst import convert_condinst, describe_condinst
from tenfold.weights.containers import read_checkpoint
from tenfold.weights.keymap import Converted, KeyMap

State = Mapping[str, Tensor]

CLASSIFIER = "fcos.cls_logits."
ANEW = "ours; starts anew"
LITE = KeyMap(
    efficientnet.rules("backbone."),
    [
        (efficientnet.CLASSIFIER, "a classifier of ImageNet"),
        (r"_(?:conv_head|bn1|blocks\.15)\..+", "behind the last map"),
    ],
)


def described(state: State) -> tuple[int, Settings]:
    """Number of classes and settings of a published network, by its shapes.

    Raises:
        ValueError: It is of another layout, or its masks' networks are of another shape.
    """
    found = describe_condinst(state)
    if not found.classes:
        raise ValueError("its classifier is one of texts (ViRReq), not of a number of classes")
    head = DynamicHead(found.features)
    if head.numbers != found.numbers:
        raise ValueError(
            f"its masks' networks have {found.numbers} numbers; three layers of 8 channels on "
            f"{found.features} features and two coordinates have {head.numbers}"
        )
    own = Settings()
    return found.classes, replace(
        own, widths=(found.width,), depths=found.depths, channels=found.channels,
        convs=found.convs, extra=found.extra, bounds=own.bounds[: 2 + found.extra],
        branch_channels=found.branch_channels, branch_convs=found.branch_convs, mask=head,
    )  # fmt: skip


def convert(state: State, network: CondInst) -> Converted:
    """Tensors of a file, under its own names, for a network (our key -> tensor)."""
    target = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    if not isinstance(network.backbone, LiteEncoder):
        return convert_condinst(state, target)
    account = LITE.convert(state, target)
    account.missing = [k for k in account.missing if not k.endswith("num_batches_tracked")]
    return account


def opened(source: Path) -> tuple[CondInst, Converted]:
    """The network of a published file, with the account of its tensors.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It holds something else; what does not fit is listed.
    """
    state = read_checkpoint(source)
    try:
        classes, settings = described(state)
        with torch.device("meta"):  # nothing is made before every shape is known to fit
            network = CondInst(classes, settings)
        account = convert(state, network)
        values = account.require_complete()
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    network.to_empty(device="cpu")
    for name, buffer in network.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.zero_()
    network.load_state_dict(values, strict=False)
    return network.eval(), account


def load(network: CondInst, source: Path) -> Converted:
    """Fill a network from a file, as far as it fits; returns the account of every tensor.

    A file of other classes fills all but the classifier, one of ImageNet the backbone.

    Args:
        network: With a ResNet-50 or an EfficientNet-Lite0 as backbone.
        source: A file of torch or safetensors, in AdelaiDet's or detectron2's layout.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It holds no tensor of such a network, or those of another size.
    """
    account = convert(read_checkpoint(source), network)
    other = [key for key, *_ in account.mismatched if key.startswith(CLASSIFIER)]
    account.ignored += [(account.origin[key], "a classifier of other classes") for key in other]
    account.mismatched = [entry for entry in account.mismatched if entry[0] not in other]
    is_backbone = bool(account.state) and all(k.startswith("backbone.") for k in account.state)
    anew = [key for key in account.missing if is_backbone and not key.startswith("backbone.")]
    account.missing = [key for key in account.missing if key not in anew]
    account.ignored += [(key, ANEW) for key in (*other, *anew)]
    if not account.state or account.mismatched or account.missing:
        raise ValueError(f"{source} does not fill this network:\n{account.report()}")
    network.load_state_dict(account.state, strict=False)
    return account
