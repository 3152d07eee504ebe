"""Checks of ViRReq's files and metrics: panoptic parts, PartPQ, HPQ."""

from __future__ import annotations

import numpy as np

from golden.harness import Case, close
from tenfold.data.images import panoptic_parts
from tenfold.data.images.runs import code_of, full
from tenfold.metrics import panoptic
from tenfold.structures import Tree, Unit


def check_uids(case: Case) -> None:
    """Decoding, encoding, the ranges of the set's spec, ViRReq's train numbers."""
    uids = case.take("uids")
    ids = panoptic_parts.decode(uids)
    checked = panoptic_parts.within(ids, panoptic_parts.CITYSCAPES_PARTS)
    classes, parts = panoptic_parts.train_ids(checked)
    case.compare_all(
        {
            "sids": ids.sids, "iids": ids.iids, "pids": ids.pids, "sids_iids": ids.sids_iids,
            "sids_pids": ids.sids_pids, "encoded": panoptic_parts.encode(ids),
            "sids_checked": checked.sids, "iids_checked": checked.iids,
            "pids_checked": checked.pids, "sem_trainid": classes, "part_trainid": parts,
        }
    )  # fmt: skip


def check_part_pq(case: Case) -> None:
    """The mean, those over classes with and without parts, and each class."""
    truth = [panoptic_parts.decode(one) for one in case.take("gt_uids")]
    found = [panoptic.PartMap(*np.moveaxis(one, -1, 0)) for one in case.take("pred_sid_iid_pid")]
    quality = panoptic.part_pq(truth, found)
    parts = panoptic.CITYSCAPES_PARTS
    with_parts = {parts.names[sid] for sid in parts.with_parts}
    groups = [set(parts.names.values()), with_parts, set(parts.names.values()) - with_parts]
    for names, want in zip(groups, case.spec["config"]["results"], strict=True):
        some = quality.among(names)
        got = [some.pq, some.sq, some.rq, len(some.present)]
        np.testing.assert_allclose(got, [*want.values()], rtol=1e-12)
    for name, want in case.spec["config"]["per_class"].items():
        counts = quality.classes[name]
        np.testing.assert_allclose([counts.pq, counts.sq, counts.rq], [*want.values()], rtol=1e-12)
    case.compare("PartPQ", np.float32(quality.pq), rtol=1e-6, atol=0)


def _mask(rects: list[list[int]], size: tuple[int, int]) -> dict:
    found = np.zeros(size, dtype=bool)
    for x0, y0, x1, y1 in rects:
        found[y0:y1, x0:x1] = True
    return code_of(found)


def tree_of(picture: dict, side: str) -> Tree:
    """One side of a picture of the case."""
    size = tuple(picture["hw"])
    units = [Unit(0, "scene", None, full(*size), state="done")]

    def add(entries: list[dict], parent: int) -> None:
        for entry in entries:
            state = "not-annotated" if entry["children"] is None else "done"
            number = len(units)
            units.append(
                Unit(number, entry["cls"], parent, _mask(entry["rects"], size), state=state)
            )
            add(entry["children"] or [], number)

    add(picture[side], 0)
    void = _mask(picture["void"], size) if picture.get("void") else None
    return Tree(size, tuple(units), void=void)


def check_hpq(case: Case) -> None:
    """Both rules, each class and its counts."""
    options = case.spec["config"]
    for name in case.arrays:
        pictures, _, rule = name.rpartition(".")
        sides = [
            [tree_of(picture, side) for picture in options["images"][pictures]]
            for side in ("gt", "pred")
        ]
        quality = panoptic.hpq(*sides, rule=rule)
        case.compare(name, np.float64(quality.hpq), rtol=1e-12, atol=1e-12)
        want = options["results"][name]
        for label, counts in want["counts"].items():
            got = quality.classes[label]
            assert (got.tp, got.fp, got.fn) == (counts["tp"], counts["fp"], counts["fn"]), label
            close(np.float64(got.quality), np.float64(counts["sum"]), 1e-12, 1e-12, label)
            close(np.float64(got.pq), np.float64(want["per_class"][label]), 1e-12, 1e-12, label)


KINDS = {"panoptic_parts_uids": check_uids, "part_pq": check_part_pq, "hpq": check_hpq}
