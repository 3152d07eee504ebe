"""Checks of ViRReq's Type-I network, its text classifier and its losses."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from golden.harness import Case
from golden.virreq_fill import filled, given
from tenfold.nn.mit import EPS, MitSize, MixTransformer
from tenfold.nn.segformer import NormedFusion
from tenfold.nn.uperhead import enlarged
from tenfold.systems.virreq import loss, official
from tenfold.systems.virreq.segmentation import Network, TextClassifier, mix_transformer
from tenfold.systems.virreq.table import TextTable
from tenfold.weights.mit import from_mmseg

LIMITS = {"rtol": 1e-4, "atol": 1e-5}
"""What the README of the cases suggests."""
HALF = {"rtol": 2**-10, "atol": 2**-11}
"""A unit in the last place of float16: where a feature lies between two, its last bit decides."""


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def size_of(config: dict) -> MitSize:
    """The stages of a case's encoder; their width is per head."""
    width, heads = config["embed_dims"], config["num_heads"]
    dims = tuple(width * count for count in heads)
    return MitSize(dims, tuple(heads), tuple(config["num_layers"]), tuple(config["sr_ratios"]))


def check_mit(case: Case) -> None:
    config = case.spec["config"]
    network = MixTransformer(
        *size_of(config), drop_path=0.0, ratio=float(config["mlp_ratio"]), patch_eps=EPS
    )
    network.load_state_dict(from_mmseg(filled(case)))
    with torch.no_grad():
        maps = network.eval()(given(case, "x"))
    case.compare_all({f"stage{i}": x for i, x in enumerate(maps)}, LIMITS)


def check_head(case: Case) -> None:
    config = case.spec["config"]
    classifier = TextClassifier(config["channels"], config["text_dim"], 0.1, 0, config["half"])
    head = NormedFusion(config["in_channels"], config["channels"])
    whole = nn.ModuleDict({"decode_head": head, "classifier": classifier}).eval()
    whole.load_state_dict(official.ours({f"decode_head.{k}": v for k, v in filled(case).items()}))
    vectors = given(case, "text")
    maps = [given(case, f"feat{level}") for level in range(len(config["in_channels"]))]
    with torch.no_grad():
        fused = head(maps)
        every = classifier(fused, vectors)
        few = classifier(fused, vectors[: config["num_semantic"]])
    got = {"logits_all": every, "logits_test_semantic": few, "argmax": every.argmax(1).short()}
    case.compare_all(got, HALF if config["half"] else LIMITS)


def labels_of(case: Case, name: str) -> Tensor:
    return torch.from_numpy(case.take(f"gt_{name}").copy())


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Percent of labelled pixels whose largest logit is right."""
    large = enlarged(logits, (labels.shape[1], labels.shape[2]))
    return 100 * (large.argmax(1) == labels)[labels != 255].float().mean()[None]


def losses(case: Case, logits: Tensor) -> dict[str, Tensor]:
    """Both losses of logits, which leave the labels as they are."""
    config, count = case.spec["config"], case.spec["config"]["num_semantic"]
    others = config.get("semantic_others_weight", 0.01), config.get("part_others_weight", 0.01)
    share = config.get("part_loss_weight", 3.0)
    semantic, parts = labels_of(case, "semantic"), labels_of(case, "part")
    allowed = None
    if "gt_instance" in case.arrays:
        instances = labels_of(case, "instance")
        allowed = loss.present_parts(parts, instances, config["num_parts"])
    before = semantic.clone(), parts.clone()
    found = {
        "loss_ce": loss.request_loss(logits[:, :count], semantic, others[0]),
        "loss_ce_part": share
        * loss.request_loss(logits[:, count:], parts, others[1], allowed=allowed),
    }
    assert torch.equal(before[0], semantic) and torch.equal(before[1], parts)
    return found


def check_loss(case: Case) -> None:
    logits, count = given(case, "logits").requires_grad_(), case.spec["config"]["num_semantic"]
    found = losses(case, logits)
    torch.stack(list(found.values())).sum().backward()
    got = found | {"grad_logits": logits.grad}
    semantic, parts = labels_of(case, "semantic"), labels_of(case, "part")
    got["acc_seg"] = accuracy(logits[:, :count], semantic)
    of_parts = enlarged(logits[:, count:].detach(), (parts.shape[1], parts.shape[2]))
    if "gt_instance" in case.arrays:
        allowed = loss.present_parts(parts, labels_of(case, "instance"), of_parts.shape[1])
        possible = allowed.table[allowed.instances].movedim(3, 1)
        of_parts = of_parts.masked_fill(~possible, float(np.log(1e-40)))
    got["acc_seg_part"] = accuracy(of_parts, parts)
    case.compare_all(got, LIMITS)


def network_of(case: Case) -> Network:
    """The network of a case, through the official layout there and back."""
    config, state = case.spec["config"], filled(case)
    count = config["num_semantic"] + config["num_parts"]
    width = case.spec["inputs"]["text"]["shape"][1]
    table = TextTable([f"name {i}" for i in range(count)], width, "rule")
    table.fill(given(case, "text"))
    classifier = TextClassifier(config["head_channels"], width, config["dropout"], 0)
    backbone = mix_transformer(size_of(config["backbone"]), 0.0)
    network = Network(backbone, config["head_channels"], classifier, table)
    account = official.convert(official.ours(state), shapes(network))
    network.load_state_dict(account.require_complete(), strict=False)
    back = official.theirs(network.state_dict())
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())
    return network.eval()


def check_full(case: Case) -> None:
    network = network_of(case)
    logits = network(given(case, "x"))
    found = losses(case, logits)
    torch.stack(list(found.values())).sum().backward()
    slopes = {key: p.grad for key, p in network.named_parameters() if p.grad is not None}
    norms = {f"grad_norm_{key}": value.norm() for key, value in official.theirs(slopes).items()}
    case.compare_all({"logits": logits} | found | norms, LIMITS)


KINDS = {
    "mit": check_mit,
    "head": check_head,
    "loss": check_loss,
    "full": check_full,
}
"""Kind of case -> its check."""
