"""The numbers of an explanation as JSON."""

from __future__ import annotations

from typing import Any

from ..faithfulness import Curves
from ..games import Estimate
from .explanation import Explanation
from .judge import Quality


def as_json(name: str, said: Explanation, quality: Quality | None) -> dict[str, Any]:
    """All numbers, with what made them."""
    options = said.options
    found: dict[str, Any] = {
        "photo": name,
        "sentence": said.sentence,
        "words": list(said.words),
        "against": list(said.against),
        "encoder": said.encoder,
        "scale": said.scale,
        "logits": list(said.logits),
        "nothing": said.nothing,
        "patches": {
            "rows": said.players.rows,
            "columns": said.players.columns,
            "boxes": [[round(v, 2) for v in cell] for cell in said.players.cells],
        },
        "options": {
            "p": options.p, "pictures": options.pictures, "texts": options.texts,
            "regions": options.regions, "absent": options.absent, "seed": options.seed,
        },
        "interactions": _estimate(said.pairs),
        "values": {"patches": _estimate(said.patches), "words": _estimate(said.each_word)},
        "for_sentence": _estimate(column(said.shown, 0)),
    }  # fmt: skip
    if said.against:
        found["right_less_wrong"] = _estimate(column(said.shown, 1))
    if said.box is not None:
        box = said.box
        found["box"] = {
            "box": list(box.box),
            "patches": box.members.nonzero()[:, 0].tolist(),
            "alone": box.alone,
            "without": box.without,
            "value": _estimate(box.value),
            "together": _estimate(box.together),
            "words": _estimate(box.words),
        }
    if quality is not None:
        found["quality"] = {
            "r2": {kind: [one.value, one.standard_error]
                   for kind, one in (("heat_map", quality.heat), ("pairs", quality.pairs))},
            "has_patch_pairs": quality.has_patch_pairs,
            "gain": {"heat_map": quality.by_heat.gain, "pairs": quality.by_pairs.gain,
                     "random": [quality.random.value, quality.random.standard_error]},
            "curves": {"heat_map": _curves(quality.by_heat), "pairs": _curves(quality.by_pairs)},
            "pointing": {kind: {"hit": one.hit, "inside": one.inside, "chance": one.chance}
                         for kind, one in quality.pointing.items()},
        }  # fmt: skip
    return found


def _estimate(found: Estimate) -> dict[str, Any]:
    return {"value": found.value.tolist(), "standard_error": found.standard_error.tolist()}


def _curves(found: Curves) -> dict[str, list[float]]:
    return {"insertion": found.insertion.tolist(), "deletion": found.deletion.tolist()}


def column(found: Estimate, number: int) -> Estimate:
    """One column of a table of estimates."""
    return Estimate(found.value[:, number], found.standard_error[:, number], found.samples)
