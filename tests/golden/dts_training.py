"""Checks of DTS's pseudo labels, losses and whole training steps, and of its metric."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

from golden.dts_networks import LIMITS, encoder, given, head, official
from golden.harness import Case
from tenfold.data.images import mixing
from tenfold.metrics import iou
from tenfold.nn.ema import teacher_of
from tenfold.nn.pixel_loss import pixel_loss
from tenfold.nn.uperhead import enlarged
from tenfold.systems.dts import groups, loss
from tenfold.systems.dts.config import Config, Data, Groups, Host, Model
from tenfold.systems.dts.hosts import Pass, Students
from tenfold.systems.dts.model import Networks, Segmenter

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def labels_of(case: Case, role: str) -> Tensor:
    """Labels that are an input."""
    return given(case, role).to(torch.uint8)


def check_pseudo_label(case: Case) -> None:
    config = case.spec["config"]
    logits = given(case, "logits")
    labels, confidence = loss.pseudo_labels(logits.softmax(1))
    height, width = labels.shape[1:]
    margins = (config["ignore_top"], config["ignore_bottom"], 0, 0)
    got: dict[str, Tensor] = {"label": labels, "prob": confidence}
    for threshold in config["thresholds"]:
        found = loss.quality(confidence, threshold)
        got[f"q_{threshold}"] = found[0, 0, 0]
        got[f"weight_{threshold}"] = found * loss.border(height, width, margins)
    case.compare_all(got, LIMITS)


def check_fdist(case: Case) -> None:
    config = case.spec["config"]
    student, frozen = given(case, "f_student"), given(case, "f_imnet")
    cells = loss.coarse_labels(
        labels_of(case, "gtfd"), config["scale_factor"], config["num_classes"], config["min_ratio"]
    )
    mask = loss.cells_of(cells, config["thing_classes"])
    distance = loss.feature_distance(student, frozen, mask)
    got = {
        "rescaled": cells, "mask": mask.byte(), "dist": distance,
        "loss": config["fdist_lambda"] * distance,
        "dist_nomask": loss.feature_distance(student, frozen),
    }  # fmt: skip
    case.compare_all(got, LIMITS)


def check_miou(case: Case) -> None:
    config = case.spec["config"]
    count = config["num_classes"]
    numbers = sorted(int(m[1]) for name in case.arrays if (m := re.fullmatch(r"pred(\d+)", name)))
    total = torch.zeros(count, count, dtype=torch.int64)
    for number in numbers:
        found, true = (torch.from_numpy(case.take(f"{what}{number}")) for what in ("pred", "gt"))
        total += iou.confusion(found, true, count, config["ignore"])
    right, rows, columns = total.diagonal(), total.sum(1), total.sum(0)
    of_class = iou.iou(total)
    got = {
        "intersect": right.float(), "union": (rows + columns - right).float(),
        "pred": columns.float(), "label": rows.float(), "iou_nan": of_class.float(),
        "acc_nan": (right / rows).float(), "aAcc": (right.sum() / rows.sum()).float(),
        "miou": of_class.nanmean().float(),
    }  # fmt: skip
    scale = case.arrays["miou"] / got["miou"].item()  # a share, or percent
    got["miou"] = got["miou"] * (100.0 if scale > 10 else 1.0)
    case.compare_all(got, LIMITS)
    assert iou.scores(total)["mIoU"] == 100 * float(of_class.nanmean())


def check_dts_reading(case: Case) -> None:
    """Float64 from end to end, as the reference."""
    config = case.spec["config"]
    host = Host(threshold=config["threshold"])
    role = "dts.{}".format if any("dts." in i.name for i in case.inputs) else str
    image = {name: given(case, role(name)) for name in ("s1", "s2", "ta", "tb")}
    true = {group: labels_of(case, role(f"y{group}")) for group in (1, 2)}
    seen = {
        (teacher, side): given(case, role(f"teacher{teacher}_t{side}")).double().softmax(1)
        for teacher in (1, 2)
        for side in "ab"
    }
    logits = {name: given(case, role(f"z_{name}")).double() for name in ("s1", "st", "s2", "tt")}
    inside = torch.ones(true[1].shape, dtype=torch.bool)
    source = Pass(image["s1"], true[1], torch.ones(true[1].shape, dtype=torch.float64))
    got: dict[str, Tensor] = {}
    for provider, choices in config["choices"].items():
        target = {}
        for group, side in ((1, "a"), (2, "a"), (2, "b")):
            given_by = groups.TEACHERS[provider][group]
            mean = groups.averaged([seen[teacher, side] for teacher in given_by])
            target[group, side] = groups.labelled(image[f"t{side}"], mean, inside, host)
            got[f"pl{group}_t{side}"] = target[group, side].labels
            got[f"q{group}_t{side}:f64"] = target[group, side].weights[0, 0, 0]
        mixed = {
            "st": groups.pasted(source, target[1, "a"], chosen(choices["group1"])),
            "tt": groups.pasted(target[2, "a"], target[2, "b"], chosen(choices["group2"])),
        }
        for name, one in mixed.items():
            got |= {
                f"{name}_label": one.labels, f"{name}_weight:f64": one.weights,
                f"{name}_img": one.images,
            }  # fmt: skip
        parts = [
            pixel_loss(logits["s1"], true[1]),
            pixel_loss(logits["st"], mixed["st"].labels, mixed["st"].weights),
            pixel_loss(logits["s2"], true[2]),
            pixel_loss(logits["tt"], mixed["tt"].labels, mixed["tt"].weights),
        ]
        got["losses_s1_st_s2_tt:f64"] = torch.stack(parts)
        got["L1:f64"], got["L2:f64"] = parts[0] + parts[1], parts[2] + parts[3]
        compare_part(case, f"{provider}:", got, EXACT)


def compare_part(case: Case, prefix: str, got: dict[str, Tensor], limits: dict) -> None:
    """Compare the stored arrays whose names begin so."""
    names = [name for name in case.arrays if name.startswith(prefix)]
    case.compare_all({f"{prefix}{name}": value for name, value in got.items()}, limits, names=names)


def chosen(classes: list[list[int]]) -> Tensor:
    """Drawn classes of each image as `mixing.draw_classes` has them."""
    found = torch.zeros(len(classes), mixing.LABELS, dtype=torch.bool)
    for row, some in enumerate(classes):
        found[row, some] = True
    return found


class GivenDraws(groups.Draws):
    """Draws whose classes are those of a case."""

    choices: list[list[list[int]]]

    def classes(self, what: str, group: int, labels: Tensor) -> Tensor:
        drawn = mixing.draw_classes(labels, torch.Generator(), compat=self.cfg.host.compat)
        given_ones = chosen(self.choices[self.index])
        # as many are drawn, of the same ones
        assert drawn.sum(1).tolist() == given_ones.sum(1).tolist()
        classes = labels.unique().tolist()
        assert set(given_ones.any(0).nonzero().flatten().tolist()) <= set(classes)
        return given_ones


def configuration(case: Case) -> Config:
    """DAFormer as the case has it."""
    config = case.spec["config"]
    size = config["encoder"]
    height, width = case.find("s0").shape[2:]
    classes = tuple(f"class {i}" for i in range(config["num_classes"]))
    return Config(
        method="host",
        model=Model(
            dims=tuple(size["embed_dims"]), depths=tuple(size["depths"]),
            heads=tuple(size["num_heads"]), reductions=tuple(size["sr_ratios"]), drop_path=0.0,
        ),
        data=Data(
            batch_size=case.find("s0").shape[0], crop=(height, width),
            border=(config["ignore_top"], config["ignore_bottom"], 0, 0),
        ),
        host=Host(
            alpha=config["alpha"], threshold=config["pseudo_threshold"], jitter=0.0, blur=0.0,
            feature_weight=config["fdist_lambda"], feature_share=config["fdist_min_ratio"],
            compat=True,
        ),
        groups=Groups(deploy="student1"),
        classes=classes,
    )  # fmt: skip


def check_dacs_step(case: Case) -> None:
    """Whole iterations by the code that trains: losses, gradients, student and teacher."""
    config, cfg = case.spec["config"], configuration(case)
    networks = Networks(cfg)
    student = Segmenter(encoder(config["encoder"]), head(config, config["encoder"]["embed_dims"]))
    student.load_state_dict(official(case))
    networks.add_module("student1", student)
    networks.add_module("teacher1", teacher_of(student))
    frozen = encoder(config["encoder"]).eval().requires_grad_(False)
    own, norms = frozen.state_dict(), set(case.spec["norm_weight_keys"])
    for key, value in own.items():
        name = f"backbone.{key}"
        shape = tuple(value.shape)
        drawn = case.rule(f"imnet.{name}", shape, 1.0 if name in norms else case.spec["scale"])
        value.copy_(torch.from_numpy(1 + np.float32(0.1) * drawn if name in norms else drawn))
    students = Students([student], cfg.host, config["thing_classes"]).train()
    draws = type("Drawn", (GivenDraws,), {"choices": config["class_choices"]})
    training = groups.SelfTraining(cfg, networks, frozen, draws)
    rate = float(re.search(r"lr ([\d.]+)", config["optimizer"])[1])
    optimizer = torch.optim.SGD(student.parameters(), lr=rate)
    height, width = cfg.data.crop
    inside = loss.border(height, width, cfg.data.border).expand(cfg.data.batch_size, -1, -1)
    seen: list[tuple[Tensor, Tensor]] = []
    students.register_forward_pre_hook(lambda _, words: seen.append([words[2]]))
    student.register_forward_hook(lambda *words: seen[-1].append(words[2].fused.detach()))
    for step in range(len(config["class_choices"])):
        batch = {
            "index": step, "places": list(range(cfg.data.batch_size)),
            "source1": given(case, f"s{step}"), "labels1": labels_of(case, f"y{step}"),
            "target_a": given(case, f"t{step}"), "valid_a": inside,
        }  # fmt: skip
        seen.clear()
        student.zero_grad()
        parts = training(students, batch, lambda value: value.backward())
        gradients = {name: p.grad.clone() for name, p in student.named_parameters()}
        # the teacher of this step, which the official code moves at its beginning
        teacher = {k: v.clone() for k, v in networks.teacher(1).named_parameters()}
        optimizer.step()
        training.after_step(step)
        got = {
            "decode.loss_seg": parts["loss/source1"],
            # the official log keeps the last loss under this name
            "loss": parts["loss/mixed1"],
            "src.loss_imnet_feat_dist": parts["loss/features1"],
            "mix.decode.loss_seg": parts["loss/mixed1"],
            "decode.acc_seg": accuracy(*seen[0]), "mix.decode.acc_seg": accuracy(*seen[1]),
            "gradnorm": torch.cat([g.flatten() for g in gradients.values()]).norm(),
            **{f"grad:{name}": value for name, value in gradients.items()},
            **{f"teacher:{name}": value for name, value in teacher.items()},
            **{f"student:{name}": p for name, p in student.named_parameters()},
        }  # fmt: skip
        compare_part(case, f"it{step}:", got, LIMITS)


def accuracy(labels: Tensor, logits: Tensor) -> Tensor:
    """Share of all pixels that are right, in percent; ignored ones are not."""
    found = enlarged(logits, tuple(labels.shape[1:])).argmax(1)
    return 100 * (found == labels).float().mean()


KINDS = {
    "pseudo_label": check_pseudo_label,
    "fdist": check_fdist,
    "miou": check_miou,
    "dts_reading": check_dts_reading,
    "dacs_step": check_dacs_step,
}
"""Kind of case -> its check."""
