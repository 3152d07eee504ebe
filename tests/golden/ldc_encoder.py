"""Checks of LDC's encoder, reached through the official key map, and of the public index lists."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from golden.harness import Case
from golden.ldc_fill import fill, given
from tenfold.data.images.fscil import OWN
from tenfold.nn.resnet import ResNet
from tenfold.systems.ldc.heads import cosine
from tenfold.systems.ldc.official import convert, official_state, size_of

FORMATS = (torch.contiguous_format, torch.channels_last)
KINDS = (torch.float32, torch.float64)
FORWARD = 2e-5
"""Relative to a tensor's largest entry; a fifth of what the cases, made in float32, suggest."""
GRADIENT = {torch.float32: 1e-2, torch.float64: 2e-5}
"""The same. In float32 another kind of CPU rounds otherwise, and one of thousands of rectifiers
whose input is nearly zero may open or close: seen as 2.5e-3 of a gradient, at unchanged outputs."""


def official(case: Case) -> dict[str, Tensor]:
    """The case's weights as the official code saves them; counters are as constructed."""
    state = {f"module.{key}": fill(case, key, shape) for key, shape in case.spec["params"]}
    for key in list(state):
        if key.endswith(".running_mean"):
            state[key.removesuffix("running_mean") + "num_batches_tracked"] = torch.tensor(0)
    return {"params": state}


def network(case: Case, state: dict[str, Tensor]) -> tuple[ResNet, Tensor]:
    """Encoder and class vectors, through the key map: every key of both sides is accounted for."""
    size, config = size_of(state), case.spec["config"]
    assert (size.dim, size.num_classes) == (config["feature_dim"], config["num_classes"])
    encoder = ResNet(size.kind, size.width)
    target = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    target["classifier"] = torch.zeros(size.num_classes, size.dim)
    account = convert(state, target)
    assert not account.ignored
    found = account.require_complete()
    vectors = found.pop("classifier")
    encoder.load_state_dict({key.removeprefix("encoder."): v for key, v in found.items()})
    return encoder, vectors


def outputs(
    case: Case, state: dict[str, Tensor], kind: torch.dtype, memory: torch.memory_format
) -> dict[str, Tensor]:
    """Everything that a case may hold, by its names."""
    config = case.spec["config"]
    encoder, vectors = network(case, state)
    encoder = encoder.to(kind).to(memory_format=memory)
    vectors = vectors.to(kind, copy=True).requires_grad_()
    x = given(case, "x").to(kind).contiguous(memory_format=memory)
    labels, found = torch.tensor(config["labels"]), {}
    for mode in ("eval", "train"):
        features = encoder.train(mode == "train")(x)
        logits = cosine(features, vectors, float(config["temperature"]))
        loss = functional.cross_entropy(logits[:, : config["base_class"]], labels)
        found |= {f"{mode}_feat": features, f"{mode}_logits": logits, f"{mode}_loss": loss}
        if mode == "eval":
            maps = encoder.maps(x)
            found["eval_map_shape"] = torch.tensor(maps[-1].shape)
            for stage, x_stage in zip(encoder.stages, maps, strict=True):
                found[f"eval_{stage}_pooled"] = x_stage.mean((2, 3))
    loss.backward()
    assert encoder.conv1.weight.grad is not None and vectors.grad is not None
    return {
        **found,
        "grad_conv1": encoder.conv1.weight.grad,
        "grad_fc": vectors.grad,
        "bn1_running_mean_after": encoder.bn1.running_mean,
        "bn1_running_var_after": encoder.bn1.running_var,
    }


def check_encoder(case: Case) -> None:
    state = official_state(official(case))
    for kind in KINDS:
        for memory in FORMATS:
            got = outputs(case, state, kind, memory)

            def limits(name: str, kind: torch.dtype = kind) -> dict[str, float]:
                share = GRADIENT[kind] if name.startswith("grad_") else FORWARD
                return {"rtol": 0.0, "atol": share * float(np.abs(case.arrays[name]).max())}

            case.compare_all(got, limits, f"{kind} {memory}", case.arrays)


def lists(case: Case) -> Path:
    try:
        return case.data_file("data/fscil_index_lists")
    except FileNotFoundError as error:
        pytest.skip(f"the index lists are absent ({error}); set TENFOLD_DATA")


def digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def class_of(line: str, order: list[str]) -> int:
    """The class of a line of CUB (number of the folder) or miniImageNet (place in the order)."""
    folder = line.split("/")[-2]
    return order.index(folder) if order else int(folder[:3]) - 1


def check_protocol(case: Case) -> None:
    root = lists(case)
    for name, want in case.spec["datasets"].items():
        order = []
        if "class_order_sha256" in want:
            order = (root / name / "class_order.txt").read_text().splitlines()
            assert digest(order) == want["class_order_sha256"], name
            assert order[:5] == want["class_order_first5"] and len(order) == want["total"]
        assert name in OWN, f"{case.json_path}: no protocol of {name!r}; known: {sorted(OWN)}"
        own = OWN[name]  # what our readers take
        assert (own.base, own.way, own.shot) == tuple(want[k] for k in ("base", "way", "shot"))
        assert own.sessions + 1 == want["sessions"] == len(want["files"]), name
        assert own.base + own.sessions * own.way == want["total"], name
        for file in want["files"]:
            session = int(re.findall(r"\d+", file["file"])[0]) - 1
            assert session == 0 or file["n"] == own.way * own.shot, f"{name} {file['file']}"
            path = root / name / file["file"]
            if not path.exists():  # miniImageNet's base is all pictures of its classes: no list
                assert session == 0 and order, path
                continue
            lines = path.read_text().splitlines()
            assert (len(lines), digest(lines)) == (file["n"], file["sha256_of_lines"]), path
            assert (lines[:2], lines[-2:]) == (file["first"], file["last"]), path
            if "class_min" in file:
                first = own.base + (session - 1) * own.way if session else 0
                last = first + (own.way if session else own.base) - 1
                assert (file["class_min"], file["class_max"]) == (first, last), path
                counts = Counter(class_of(line, order) for line in lines)
                assert counts == dict.fromkeys(range(first, last + 1), file["per_class"]), path


CHECKS = {"encoder": check_encoder, "protocol": check_protocol}
