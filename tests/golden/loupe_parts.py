"""Checks of LOUPE's losses, regions, predictor and phrases, and of what measures them."""

from __future__ import annotations

import re

import numpy as np
import torch

from golden.harness import Case
from golden.loupe_fill import EXACT, direction, filled, given
from tenfold.metrics import ap, retrieval
from tenfold.metrics import grounding as measured
from tenfold.systems.loupe import loss, phrases, regions, unsil, zero_shot


def check_losses(case: Case) -> None:
    config = case.spec["config"]
    images, texts = (direction(case, role).requires_grad_() for role in ("I", "Tx"))
    contrast = loss.contrastive_loss(images, texts, float(config["logit_scale"]))
    contrast.backward()
    is_word = torch.tensor(config["text_mask"]).bool()
    of_image, of_text = loss.fine_similarities(
        direction(case, "Xtok"), direction(case, "Wtok"), is_word
    )
    interaction = given(case, "Jt")
    target = loss.token_targets(interaction)
    mean = given(case, "mu").requires_grad_()
    log_variance = (given(case, "logvar") + _shift(config["logvar"])).requires_grad_()
    deviation = unsil.sigma(log_variance.detach())
    likelihood = loss.predictor_loss(mean, log_variance, interaction)
    likelihood.backward()
    nobody = unsil.to_sample(deviation, config["tau_unc"], share=0.0)
    got = {
        "cmc": contrast, "cmc_grad_I": images.grad, "cmc_grad_T": texts.grad,
        "fine_i2t": of_image, "fine_t2i": of_text, "fine_sym": (of_image + of_text) / 2,
        "tsa_target": target, "tsa": loss.token_loss(given(case, "slogit").sigmoid(), target),
        "unsil": likelihood, "unsil_grad_mu": mean.grad,
        "unsil_grad_logvar": log_variance.grad, "sample_mask": nobody.double(),
    }  # fmt: skip
    case.compare_all(got, EXACT)


def _shift(note: str) -> float:
    """The number at the end of "rule(scale .5) - 7"."""
    found = re.search(r"\)\s*([+-])\s*([\d.]+)\s*$", note)
    return float(found[1] + found[2]) if found else 0.0


def check_region_generation(case: Case) -> None:
    config, tokens = case.spec["config"], given(case, "rgmX")
    grid, count = config["grid"], config["M"]
    hidden = dict(case.spec["weights"])[next(k for k, _ in case.spec["weights"] if "fc1.w" in k)][0]
    head = filled(case, regions.RegionHead(tokens.shape[1], grid, hidden))
    with torch.no_grad():
        scores, boxes = head(tokens)
    everyone = torch.arange(len(tokens))
    hard = regions.hard_members(boxes, grid, everyone)
    soft = regions.soft_members(boxes, grid, config["soft_T"])
    index, there = regions.select(scores[None], boxes[None], count, config["nms_iou"])
    keep = index[0][there[0]]
    got = {
        "scores": scores, "boxes": boxes, "hard": hard.double(), "soft": soft, "keep": keep,
        "region_hard": regions.pooled(tokens, hard[keep]),
        "region_soft": regions.pooled(tokens, soft[keep]),
    }  # fmt: skip
    case.compare_all(got, EXACT)


def check_unsil_forward(case: Case) -> None:
    config, tokens = case.spec["config"], given(case, "uX")
    network = filled(case, unsil.Unsil(config["d"], config["hidden"]))
    chosen = torch.tensor(config["region_masks"]).bool()
    with torch.no_grad():
        found = network(tokens[None], given(case, "ut")[None], chosen[None])
    case.compare_all({"out": torch.stack(found, -1)[0]}, EXACT)


def check_retrieval_recall(case: Case) -> None:
    config = case.spec["config"]
    per_image, images = config["captions_per_image"], config["images"]
    owners = np.arange(images * per_image) // per_image
    own = owners == np.arange(images)[:, None]
    similarity = np.round(case.input("S").astype(float) + 2 * own, 1)
    found = retrieval.retrieval(similarity, owners, config["K"])
    ranks = {
        "i2t": retrieval.image_to_text_ranks(similarity, owners),
        "t2i": retrieval.text_to_image_ranks(similarity, owners),
    }
    got = {"rsum": found["rsum"]}
    for way, some in ranks.items():
        got[f"rank_{way}"] = some
        got[f"recall_{way}"] = np.array([retrieval.recall(some, k) for k in config["K"]])
        got[f"medr_{way}"] = found[f"{way}/median"]
    case.compare_all({k: np.asarray(v) for k, v in got.items()}, EXACT)


def check_detection_ap(case: Case) -> None:
    config = case.spec["config"]
    truth, found = ([[] for _ in range(config["images"])] for _ in range(2))
    for image, label, *box in config["gt"]:
        truth[image].append(_row(label, box))
    for image, label, score, *box in config["detections"]:
        found[image].append(_row(label, box) | {"score": score})
    got = {}
    limits = config["thresholds"]
    measured = ap.at_thresholds(truth, found, config["classes"], "boxes", limits)
    for limit, one in measured.items():
        name = f"{round(100 * limit)}"
        for how, values, mean in (
            ("101", one.interpolated, one.mean_interpolated),
            ("all", one.all_points, one.mean_all_points),
        ):
            got[f"ap{name}_{how}"] = (
                np.array([values.get(c, np.nan) for c in range(config["classes"])]) / 100
            )
            got[f"map{name}_{how}"] = np.array(mean) / 100
    case.compare_all(got, EXACT)


def _row(label: int, box: list[float]) -> dict:
    x0, y0, x1, y1 = box
    wide, tall = x1 - x0, y1 - y0
    area = {"area": wide * tall, "iscrowd": 0}
    return {"category_id": label, "bbox": [x0, y0, wide, tall]} | area


def check_grounding(case: Case) -> None:
    config = case.spec["config"]
    truth, found, points = (np.array(config[k], dtype=float) for k in ("gt", "pred", "points"))
    numbers = measured.grounding(found, truth, points)
    names = {"acc50": "acc@0.5", "acc30": "acc@0.3", "pointing": "pointing", "miou": "iou"}
    got = {ours: np.array(numbers[name]) for ours, name in names.items()}
    got["miou"] = got["miou"] / 100
    case.compare_all(got | {"iou": measured.paired_iou(found, truth)}, EXACT)


def check_zero_shot(case: Case) -> None:
    tau = case.spec["config"]["tau"]
    found, prompts, phrase = (direction(case, role) for role in ("zr", "ze", "zq"))
    confidence = given(case, "zs").sigmoid()
    classes = zero_shot.class_vectors(prompts)
    shares = zero_shot.class_shares(found, classes, tau)
    scores = zero_shot.ground(found, confidence, phrase, tau)
    got = {
        "class_embed": classes, "class_prob": shares, "det_score": confidence[:, None] * shares,
        "label": shares.argmax(1), "ground_score": scores, "ground_index": scores.argmax(),
    }  # fmt: skip
    case.compare_all(got, EXACT)
    corners = torch.arange(len(found), dtype=torch.float64)[:, None] * torch.ones(4)
    apart = 2 * corners + torch.tensor([0.0, 0, 1, 1])
    seen = zero_shot.detect(apart, confidence, shares)
    best = (confidence[:, None] * shares).amax(1)
    torch.testing.assert_close(seen.scores, best.sort(descending=True).values)


def check_phrase_chunker(case: Case) -> None:
    config = case.spec["config"]
    found = [phrases.spans(text, most=len(text)) for text in config["texts"]]
    assert [[list(span) for span in one] for one in found] == config["spans"]
    for text, spans, words in zip(config["texts"], found, config["phrases"], strict=True):
        assert [text[start:end] for start, end in spans] == words
    if "count" in case.arrays:
        case.compare_all({"count": np.array([len(one) for one in found])})


KINDS = {
    "losses": check_losses,
    "region_generation": check_region_generation,
    "unsil_forward": check_unsil_forward,
    "retrieval_recall": check_retrieval_recall,
    "detection_ap": check_detection_ap,
    "grounding": check_grounding,
    "zero_shot": check_zero_shot,
    "phrase_chunker": check_phrase_chunker,
}
"""Kind of case -> its check."""
