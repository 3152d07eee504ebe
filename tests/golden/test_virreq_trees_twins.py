"""Cases of ViRReq's files and metrics under other names, sizes and options, numbers made anew."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from golden.harness import Case, check
from golden.twins import stored, write
from golden.virreq_trees import KINDS
from tenfold.metrics.panoptic import CITYSCAPES_PARTS


def passes(case: Case) -> None:
    check(case, "virreq", KINDS)


def typed(spec: dict, arrays: dict[str, np.ndarray]) -> dict:
    """The same with a list of outputs that fits the arrays."""
    spec["outputs"] = {name: [list(a.shape), str(a.dtype)] for name, a in arrays.items()}
    return spec


def test_under_another_name(tmp_path: Path) -> None:
    for name in ("panoptic_parts_uids", "part_pq", "hpq"):
        passes(write(tmp_path, "another", *stored("virreq", name)))


# --- numbers -------------------------------------------------------------------------------------


def test_other_numbers(tmp_path: Path) -> None:
    """Decoded by their digits."""
    spec, _ = stored("virreq", "panoptic_parts_uids")
    parts = {24: 4, 25: 4, 26: 5, 27: 5, 28: 5}
    train = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11,
             25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}  # fmt: skip
    rng = np.random.RandomState(3)
    uids = [0, 7, 99, 7000, 24001, 33999, 2400100, 2699905, 2699906, 9999999, 100099, 3300001]
    uids += [int(s * 100_000 + i * 100 + p) for s, i, p in rng.randint(1, (35, 999, 8), (40, 3))]
    rows = []
    for uid in uids:
        text = str(uid)
        sid = uid if uid < 100 else int(text[: -5 if uid >= 100_000 else -3])
        iid = -1 if uid < 100 else uid // (100 if uid >= 100_000 else 1) % 1000
        pid = uid % 100 if uid >= 100_000 else -1
        whole = uid if uid < 100_000 else uid // 100
        known = sid if sid <= 34 else 0
        part = pid if 1 <= pid <= parts.get(known, 0) else -1
        word = 255
        if part > 0:
            word = part - 1 if known < 26 else part + 3
        rows.append((uid, sid, iid, pid, whole, sid if pid < 0 else sid * 100 + pid, uid, known,
                     iid if known else -1, part, train.get(known, 255), word))  # fmt: skip
    names = ("uids", "sids", "iids", "pids", "sids_iids", "sids_pids", "encoded", "sids_checked",
             "iids_checked", "pids_checked", "sem_trainid", "part_trainid")  # fmt: skip
    kinds = ["int32"] * 10 + ["uint8"] * 2
    columns = zip(names, zip(*rows, strict=True), kinds, strict=True)
    arrays = {name: np.array(column, dtype=kind) for name, column, kind in columns}
    passes(write(tmp_path, "twin", typed(spec, arrays), arrays))
    arrays["sids_pids"] = arrays["sids_pids"] + 1
    with pytest.raises(AssertionError, match="sids_pids"):
        passes(write(tmp_path, "wrong", spec, arrays))


# --- parts ---------------------------------------------------------------------------------------


def part_quality(uids: np.ndarray, found: np.ndarray) -> dict[int, list[float]]:
    """TP, FP, FN and sum of each class, mask by mask as the official evaluator goes."""
    total = {sid: [0, 0, 0, 0.0] for sid in CITYSCAPES_PARTS.names}
    for one, seen in zip(uids, found, strict=True):
        sid = np.where(one < 100, one, np.where(one < 100_000, one // 1000, one // 100_000))
        iid = np.where(one < 100, -1, np.where(one < 100_000, one % 1000, one // 100 % 1000))
        pid = np.where(one >= 100_000, one % 100, 0)
        void = ~np.isin(sid, [*CITYSCAPES_PARTS.names])
        for k, counts in total.items():
            parted, thing = k in CITYSCAPES_PARTS.with_parts, k in CITYSCAPES_PARTS.things
            crowd, wholes = np.zeros_like(void), []
            for i in np.unique(iid[sid == k]):
                mask = (sid == k) & (iid == i)
                if (thing and i < 0) or (parted and not pid[mask].any()):
                    crowd |= mask
                else:
                    wholes.append(mask)
            segments = [
                (seen[..., 0] == k) & (seen[..., 1] == i)
                for i in np.unique(seen[..., 1][seen[..., 0] == k])
            ]
            left = list(range(len(segments)))
            for mask in wholes:
                for j in list(left):
                    other = segments[j]
                    iou = (mask & other).sum() / ((mask | other).sum() - (void & other).sum())
                    if iou > 0.5:
                        left.remove(j)
                        counts[0] += 1
                        counts[3] += iou if not parted else overlap(
                            np.where(mask, pid, 0), np.where(other, seen[..., 2], 0),
                            ~(void | crowd | (mask & (pid == 0))),
                        )  # fmt: skip
                        break
                else:
                    counts[2] += 1
            counts[1] += sum(
                (segments[j] & (void | crowd)).sum() <= segments[j].sum() / 2 for j in left
            )
    return total


def overlap(true: np.ndarray, seen: np.ndarray, counted: np.ndarray) -> float:
    true, seen = true[counted], seen[counted]
    ious = [
        ((true == p) & (seen == p)).sum() / ((true == p) | (seen == p)).sum()
        for p in np.union1d(true, seen) if p != 255
    ]  # fmt: skip
    return float(np.mean(ious))


def test_parts_of_other_pictures(tmp_path: Path) -> None:
    spec, _ = stored("virreq", "part_pq")
    rng = np.random.RandomState(5)
    uids = np.full((2, 30, 41), 7, dtype=np.int32)
    found = np.zeros((2, 30, 41, 3), dtype=np.int32)
    found[..., 0], found[..., 2] = 7, 0
    for n in range(2):
        uids[n, :8], found[n, :9, :, 0] = (23, 3)[n], 23
        for i, (sid, parts) in enumerate(((24, 4), (26, 5), (26, 5), (33, 0), (28, 5))):
            y, x = 9 + 4 * (i % 2), 8 * i
            box, moved = np.s_[y : y + 14, x : x + 7], np.s_[y + n : y + 14, x : x + 7 - (i == 1)]
            base = sid * 1000 + i
            uids[n][box] = base
            if parts and not (n == 1 and i == 2):
                uids[n][y : y + 11, x : x + 7] = base * 100 + rng.randint(1, parts + 1, (11, 1))
            found[n][moved] = np.stack(np.broadcast_arrays(sid, i, 0), -1)
            if parts:
                found[n, y + n : y + 12, x : x + 6, 2] = rng.choice([1, 2, 3, 255], (12 - n, 1))
    uids[1, 13:27, 32:39] = 28  # a crowd
    counts = part_quality(uids, found)
    names = CITYSCAPES_PARTS.names
    rows = {}
    for sid, (tp, fp, fn, total) in counts.items():
        weight = tp + fp / 2 + fn / 2
        quality = [total / weight, total / max(tp, 1), tp / weight] if weight else [0.0, 0.0, 0.0]
        rows[sid] = dict(zip(("PartPQ", "PartSQ", "PartRQ"), map(float, quality), strict=True))
    present = [sid for sid in counts if sum(counts[sid][:3])]
    results = []
    for group in (
        set(names),
        CITYSCAPES_PARTS.with_parts,
        set(names) - CITYSCAPES_PARTS.with_parts,
    ):
        some = [rows[sid] for sid in present if sid in group]
        results.append({k: np.mean([row[k] for row in some]) for k in some[0]} | {"n": len(some)})
    spec["config"] = {
        "spec": spec["config"]["spec"],
        "results": [{k: float(v) for k, v in row.items()} for row in results],
        "per_class": {names[sid]: row for sid, row in rows.items()},
    }
    mean = np.float32(results[0]["PartPQ"])
    arrays = {"gt_uids": uids, "pred_sid_iid_pid": found, "PartPQ": mean}
    passes(write(tmp_path, "twin", typed(spec, arrays), arrays))
    assert len(present) >= 5 and counts[26][0] >= 2
    with pytest.raises(AssertionError, match="PartPQ"):
        passes(write(tmp_path, "wrong", spec, arrays | {"PartPQ": mean + np.float32(0.01)}))


# --- trees ---------------------------------------------------------------------------------------


class Plain:
    """HPQ by masks in memory and all assignments, for small trees."""

    def __init__(self, size: list[int], rule: str, void: list[list[int]]) -> None:
        self.size, self.rule = size, rule
        self.void = self.mask(void)

    def mask(self, rects: list[list[int]]) -> np.ndarray:
        found = np.zeros(self.size, dtype=bool)
        for x0, y0, x1, y1 in rects:
            found[y0:y1, x0:x1] = True
        return found

    def iou(self, p: dict, g: dict) -> float:
        seen, true = self.mask(p["rects"]) & ~self.void, self.mask(g["rects"])
        return float((seen & true).sum() / max((seen | true).sum(), 1))

    def quality(self, p: dict, g: dict) -> float:
        if not g["children"]:
            return self.iou(p, g)
        table = self.table(g["children"], p["children"] or [])
        return float(np.mean([s / (tp + fp / 2 + fn / 2) for s, tp, fp, fn in table.values()]))

    def table(self, gs: list[dict], ps: list[dict]) -> dict[str, tuple]:
        found = {}
        for name in {one["cls"] for one in gs + ps}:
            true = [g for g in gs if g["cls"] == name]
            seen = [p for p in ps if p["cls"] == name]
            short, long = sorted((range(len(true)), range(len(seen))), key=len)
            swap = len(short) != len(true)
            best: tuple = (-1.0, [])
            for order in permutations(long, len(short)):
                pairs = [(j, i) if swap else (i, j) for i, j in zip(short, order, strict=True)]
                values = [self.quality(seen[j], true[i]) for i, j in pairs]
                weights = [self.iou(seen[j], true[i]) for i, j in pairs]
                least = np.nextafter(0.5, 1) if self.rule == "iou" else 0.5
                weights = weights if self.rule == "iou" else values
                kept = [
                    (value, pair)
                    for value, weight, pair in zip(values, weights, pairs, strict=True)
                    if weight >= least
                ]
                total = len(kept) if self.rule == "iou" else sum(values)
                best = max(best, (total, kept), key=lambda one: one[0])
            best = best[1]
            taken = {j for _, (_, j) in best}
            fp = sum(
                j not in taken
                and (self.mask(p["rects"]) & self.void).sum() <= self.mask(p["rects"]).sum() / 2
                for j, p in enumerate(seen)
            )
            found[name] = (sum(v for v, _ in best), len(best), fp, len(true) - len(best))
        return {name: row for name, row in found.items() if sum(row[1:])}


def test_trees_of_other_pictures(tmp_path: Path) -> None:
    spec, _ = stored("virreq", "hpq")
    rng = np.random.RandomState(8)

    def unit(name: str, x: int, y: int, w: int, h: int, deep: int) -> dict:
        rects = [[x, y, x + w, y + h]]
        if not deep:
            return {"cls": name, "rects": rects, "children": None}
        half = h // 2
        parts = [unit("upper", x, y, w, half, 0), unit("lower", x, y + half, w, h - half, deep - 1)]
        return {"cls": name, "rects": rects, "children": parts + [unit("knob", x, y, 3, 3, 0)]}

    def side(found: bool) -> list[dict]:
        moved = rng.randint(-1, 2, (5, 2)) if found else np.zeros((5, 2), dtype=int)
        units = [
            unit(("tower", "house")[k > 2], 14 * k + 2 + int(m[0]), 6 + int(m[1]), 11, 20, k % 3)
            for k, m in enumerate(moved)
        ]
        return units[:-1] + [unit("kite", 0, 0, 4, 3, 0)] if found else units

    pictures = [
        {"hw": [33, 75], "gt": side(False), "pred": side(True), "void": [[0, 0, 75, 2]]}
        for _ in range(2)
    ]
    spec["config"]["images"] = {"towers": pictures}
    arrays, results = {}, {}
    for rule in ("iou", "hpq"):
        sums: dict[str, np.ndarray] = {}
        for one in pictures:
            plain = Plain(one["hw"], rule, one["void"])
            for name, row in plain.table(one["gt"], one["pred"]).items():
                sums[name] = sums.get(name, 0) + np.array(row)
        per = {name: row[0] / (row[1] + row[2] / 2 + row[3] / 2) for name, row in sums.items()}
        results[f"towers.{rule}"] = {
            "per_class": per,
            "counts": {
                name: {"sum": row[0], "tp": int(row[1]), "fp": int(row[2]), "fn": int(row[3])}
                for name, row in sums.items()
            },
        }
        arrays[f"towers.{rule}"] = np.float64(np.mean([*per.values()]))
    spec["config"]["results"] = results
    assert 0.2 < arrays["towers.hpq"] <= arrays["towers.iou"] < 0.9
    passes(write(tmp_path, "twin", typed(spec, arrays), arrays))
    with pytest.raises(AssertionError, match="towers.hpq"):
        arrays["towers.hpq"] += 0.001
        passes(write(tmp_path, "wrong", spec, arrays))
