"""Checks of USAGE's seed networks and of how their maps are merged."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from golden.harness import Case, cases
from golden.kinds import kind_of
from golden.usage_fill import given, official
from tenfold.nn.vit import EPS
from tenfold.systems.usage import loss, networks, seam, seeds
from tenfold.systems.usage import official as layouts
from tenfold.systems.usage.backbones import Model

LIMITS = {"rtol": 2e-5, "atol": 2e-5}
"""What the README of the cases suggests, of networks in float32."""
HALF = {"rtol": 1e-3, "atol": 1e-3}
NETS = {"sq": "mct_img", "ns": "mct_img_ns"}
"""Prefixes of outputs, and the pictures that they are of."""


def mctformer(case: Case) -> networks.SeedNetwork:
    """The network of a case's options, with its weights."""
    config = case.spec["config"]
    assert config["norm_eps"] == EPS and config["qkv_bias"]
    model = Model(
        "mctformer" if config["decay_parameter"] is None else "mctformer-plus",
        width=config["embed_dim"], depths=(config["depth"],), heads=config["num_heads"],
        patch_size=config["patch_size"], grid=config["img_size"] // config["patch_size"],
        ratio=float(config["mlp_ratio"]),
    )  # fmt: skip
    network = networks.build(model, config["num_classes"])
    account = layouts.convert(official(case), network)
    assert not account.missing and not account.unused, account.report()
    network.load_state_dict(account.require_complete())
    return network


def trained(case: Case, network: networks.SeedNetwork) -> dict[str, Tensor]:
    """Outputs and gradients of a training step's loss."""
    labels, decay = given(case, "mct_label"), case.spec["config"]["decay_parameter"]
    found = network.train()(given(case, NETS["sq"]))
    assert found.class_logits is not None and found.class_tokens is not None
    if decay is None:
        patch_logits = found.maps.mean((2, 3))
    else:
        patch_logits = loss.ranked_pooling(found.maps.flatten(2), decay)
    total = F.multilabel_soft_margin_loss(found.class_logits, labels)
    total = total + F.multilabel_soft_margin_loss(patch_logits, labels)
    got = {"train_cls_logits": found.class_logits, "train_patch_logits": patch_logits}
    if decay is not None:
        contrast = loss.class_token_contrast(found.class_tokens, labels)
        got |= {"train_cct_loss": contrast, "train_class_embeddings": found.class_tokens}
        total = total + contrast
    total.backward()
    got |= {"train_loss": total, "grad_head_weight": network.head.weight.grad}
    return got | {"grad_cls_token": network.body.cls_token.grad}


def evaluated(case: Case, network: networks.SeedNetwork, name: str) -> dict[str, Tensor]:
    """Maps of pictures, from those of the network to the seeds."""
    config = case.spec["config"]
    layers, decay = config["attention_n_layers"], config["decay_parameter"]
    images = given(case, NETS[name])
    rule = "mctformer" if decay is None else "mctformer-plus"
    with torch.no_grad():
        found = network.eval()(images, with_attention=True)
    logits = found.class_logits
    if decay is not None:
        logits = (logits + loss.ranked_pooling(found.maps.flatten(2), decay)) / 2
    every = torch.ones(network.num_classes, dtype=torch.bool)
    got = {"logits": logits, "patch_attn_sum": found.attention.affinity}
    for output, of in (("fused", "fused"), ("patchcam", "patch"), ("mct", "class")):
        got[f"cam_{output}"] = seeds.of_tokens(found, every, rule, of, False, layers)
    got["cam_fused_refined"] = seeds.of_tokens(found, every, rule, "fused", True, layers)
    return {f"{name}_{key}": value for key, value in got.items()}


def check_mctformer(case: Case) -> None:
    config, network = case.spec["config"], mctformer(case)
    got = (
        trained(case, network) if any(n.startswith(("train", "grad")) for n in case.arrays) else {}
    )
    for name in NETS:
        if any(key.startswith(f"{name}_") for key in case.arrays):
            got |= evaluated(case, network, name)
    every = torch.ones(network.num_classes, dtype=torch.bool)
    for name, role in NETS.items():
        key = f"{name}_seed_minmax"
        if key not in case.arrays:
            continue
        rule = "mctformer" if config["decay_parameter"] is None else "mctformer-plus"
        maps = [
            seeds.activation_maps(
                network, image, every, (1.0,), False, rule, layers=config["attention_n_layers"]
            )
            for image in given(case, role)
        ]
        case.compare(key, torch.stack(maps), **HALF)
    case.compare_all(got, LIMITS)


def check_irn_cam_merge(case: Case) -> None:
    """The stored maps are of one scale each, summed over flips: twice what the input is."""
    height, width = case.spec["config"]["size"]
    labels = given(case, "irn_label") > 0
    count = len(case.spec["config"]["scales"])
    found = [2 * given(case, f"irn_out{number}").relu()[labels] for number in range(count)]
    got = {
        "keys": labels.nonzero()[:, 0],
        "strided_cam": seeds.merged_strided(found, (height, width)),
        "highres_cam": seeds.merged(found, (height, width), "irn"),
    }
    case.compare_all(got, LIMITS)


def check_irn_cam_argmax(case: Case) -> None:
    """The maps are those of a case of merging beside it, of the same size."""
    size = case.arrays["label"].shape
    beside = [
        other
        for other in cases("usage", case.json_path.parent)
        if kind_of(other.spec, "usage", other.name) == "irn_cam_merge"
        and other.arrays["highres_cam"].shape[1:] == size
    ]
    assert len(beside) == 1, f"{case.json_path}: {len(beside)} cases of maps of {size} beside it"
    stored = torch.from_numpy(beside[0].arrays["highres_cam"])
    maps = torch.zeros(int(beside[0].find("irn_label").shape[0]), *size)
    maps[torch.from_numpy(beside[0].arrays["keys"])] = stored
    case.compare("label", seeds.label_map(maps, case.spec["config"]["bg_threshold"]))


def check_seam_ops(case: Case) -> None:
    maps, features = given(case, "seam_cam"), given(case, "seam_feat")
    (weight,) = official(case).values()
    correlation = seam.PixelCorrelation(weight.shape[1], weight.shape[0])
    correlation.load_state_dict({"f9.weight": weight})
    got = {
        "max_norm": seam.max_norm(maps), "max_onehot": seam.max_onehot(seam.max_norm(maps)),
        "adaptive_min_pooling_loss": seam.adaptive_min_pooling_loss(maps),
        "pcm": correlation(seam.max_norm(maps), features),
    }  # fmt: skip
    case.compare_all(got, LIMITS)


KINDS = {
    "mctformer": check_mctformer,
    "irn_cam_merge": check_irn_cam_merge,
    "irn_cam_argmax": check_irn_cam_argmax,
    "seam_ops": check_seam_ops,
}
"""Kind of case -> its check."""
