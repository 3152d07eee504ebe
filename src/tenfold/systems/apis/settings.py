"""The setting of every number: what was known of each object, how pixels were chosen."""

from __future__ import annotations

from .config import Config, Data

BETTER = {
    "masks": "higher", "boxes": "higher", "given": "higher", "class": "higher", "area": "higher",
    "agreement": "higher", "seconds": "lower",
}  # fmt: skip
"""Group of metrics -> direction."""
UNITS = {
    "masks": "%", "boxes": "%", "given": "%", "class": "%", "fill": "%", "area": "%",
    "agreement": "%", "answers": "", "seconds": "s",
}  # fmt: skip
"""Group of metrics -> unit."""
FIRST = "boxes"
"""Name of the first stage."""
FINAL = "final"
"""Row of the last stage."""


def stages(cfg: Config) -> list[str]:
    """Names of the stages, the first one before any pixel was chosen."""
    return [FIRST, *(f"round{number}" for number in range(1, cfg.points.rounds + 1))]


def headline(is_masked: bool) -> list[str]:
    """The metrics that a page shows first; sets without masks have agreement with answers."""
    if is_masked:
        return ["masks/final/AP", "given/final/IoU"]
    return ["agreement/final/points"]


def titles() -> dict[str, str]:
    """Titles of metrics and columns."""
    return {
        "masks/final/AP": "mask AP (COCO)",
        "given/final/IoU": "mean IoU of masks, true boxes given",
        "AP": "AP", "IoU": "mean IoU", "accuracy": "pixels of the boxes that are right",
    }  # fmt: skip


def left_aside(data: Data) -> list[str]:
    """Lines on classes and objects that do not count."""
    lines = []
    if data.one_class:
        lines.append("all objects are one class, whatever their names; else --data.no-one-class")
    if data.least > 1:
        lines.append(
            f"objects of fewer than {data.least} pixels are not trained on; else --data.least 1"
        )
    return lines


def notes(cfg: Config, kind: str) -> list[str]:
    """Lines on a run's protocol."""
    loss = cfg.loss
    known = {
        "mask": "the mask of every object", "box": "the box of every object",
        "box+points": "the box of every object and points in it",
        "points": "points in the box of every object; its box teaches detection alone",
    }[loss.supervision]  # fmt: skip
    share = f"; the mask of {100 * loss.masked_share:g} % of them" if loss.masked_share else ""
    lines = [f"masks are learned from {known}{share}"]
    if cfg.asks:
        lines.append(_asked(cfg))
        lines.append(
            f"answers come from the true masks; their seconds are stated, not measured: "
            f"{cfg.oracle.seconds_point:g} s an answer, {cfg.oracle.seconds_box:g} s a box"
        )
    else:
        lines.append("no pixel is asked about")
    lines += left_aside(cfg.data)
    if kind == "generated":
        lines.append("drawn objects: what is measured on them says nothing of photographs")
    lines.append(
        "mean IoU is of masks in the true boxes of the test's objects; baselines take the same "
        "boxes: all of each, and the ellipse in it"
    )
    return lines


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'s' if number > 1 else ''}"


def _asked(cfg: Config) -> str:
    own = cfg.points
    line = f"{_count(own.initial, 'random point')} of each object first"
    if own.rounds and own.strategy != "none" and own.per_object:
        limits = [
            f"{own.per_object} of each object",
            *([f"at most {own.per_image} of a picture"] if own.per_image else []),
            *([f"at most {own.total} of all"] if own.total else []),
        ]
        rounds = _count(own.rounds, "round")
        line += f"; then {rounds} of {', '.join(limits)}, chosen by {own.strategy}"
        if own.strategy not in ("random", "centre"):
            line += f" (committee: {own.committee})"
    errors = [
        *([f"{100 * cfg.oracle.noise:g} % wrong"] if cfg.oracle.noise else []),
        *([f"{cfg.oracle.not_sure:g} pixels around borders unsure"] if cfg.oracle.not_sure else []),
        *([f"{100 * cfg.oracle.skip:g} % skipped"] if cfg.oracle.skip else []),
    ]
    return line + (f"; {', '.join(errors)}" if errors else "")
