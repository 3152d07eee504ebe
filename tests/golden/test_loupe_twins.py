"""Cases of LOUPE under other names, sizes and options, their numbers made anew."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest
from scipy.special import erf

from golden.harness import Case, check
from golden.test_loupe import CHECKS
from golden.twins import normals, some, stored, write

Value = Callable[[frozenset[int]], float]


def passes(case: Case) -> None:
    check(case, "loupe", CHECKS)


def fails(case: Case, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        passes(case)


def renamed(spec: dict, shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Inputs of another prefix and of other shapes, and their values."""
    old, scales = spec["input_prefix"], {entry["name"]: entry["scale"] for entry in spec["inputs"]}
    spec["input_prefix"] = "twin."
    spec["inputs"] = [
        {"name": f"twin.{role}", "shape": shape, "scale": scales[old + role]}
        for role, shape in shapes.items()
    ]
    return {
        role: normals(f"twin.{role}", shape, scales[old + role]).astype(float)
        for role, shape in shapes.items()
    }


def weighted(spec: dict, shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Weights of another prefix and of other shapes, and their values."""
    spec["weights"] = [[f"twin.part.{key}", shape] for key, shape in shapes.items()]
    scale = spec["weight_scale"]
    return {k: normals(f"twin.part.{k}", s, scale).astype(float) for k, s in shapes.items()}


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + erf(x / np.sqrt(2))) / 2


# --- games by their definitions ------------------------------------------------------------------


def tabled(value: Value, players: int) -> np.ndarray:
    rows = range(2**players)
    return np.array([value(frozenset(i for i in range(players) if r >> i & 1)) for r in rows])


def shapley(value: Value, groups: list[frozenset[int]], which: int) -> float:
    """Mean of what a group adds, over the orders in which groups can come."""
    added = []
    for order in permutations(range(len(groups))):
        before = frozenset().union(*(groups[i] for i in order[: order.index(which)]))
        added.append(value(before | groups[which]) - value(before))
    return float(np.mean(added))


def interaction(value: Value, players: int, region: list[int]) -> tuple[float, float]:
    """J(R), and the value of R as one player."""
    rest = [frozenset([i]) for i in range(players) if i not in region]
    whole = shapley(value, [frozenset(region), *rest], 0)
    return whole - sum(shapley(value, [frozenset([i]), *rest], 0) for i in region), whole


def test_a_game_of_other_players(tmp_path: Path) -> None:
    spec, _ = stored("loupe", "shapley_exact")
    table = renamed(spec, {"v_table": [16]})["v_table"]
    table[0] = 0
    spec["config"] |= {"n": 4, "coalitions": [[0, 3], [1, 2, 3], [2]]}

    def value(s: frozenset[int]) -> float:
        return float(table[sum(2**i for i in s)])

    players = [frozenset([i]) for i in range(4)]
    banzhaf = np.zeros((4, 4))
    for i, j in permutations(range(4), 2):
        rest = [k for k in range(4) if k not in (i, j)]
        banzhaf[i, j] = np.mean(
            [
                value(s | {i, j}) - value(s | {i}) - value(s | {j}) + value(s)
                for s in (frozenset(c) for n in range(3) for c in combinations(rest, n))
            ]
        )
    two = [[interaction(value, 4, [i, j])[0] if i != j else 0 for j in range(4)] for i in range(4)]
    found = [interaction(value, 4, region) for region in spec["config"]["coalitions"]]
    arrays = {
        "shapley": np.array([shapley(value, players, i) for i in range(4)]),
        "sii2": np.array(two), "banzhaf2": banzhaf,
        "J": np.array([j for j, _ in found]), "phi_group": np.array([phi for _, phi in found]),
    }  # fmt: skip
    passes(write(tmp_path, "twin", spec, arrays))
    wrong = {"J": arrays["J"][::-1].copy()}
    fails(write(tmp_path, "wrong", spec, wrong), "case wrong: J")


def token_values(given: dict[str, np.ndarray], is_word: list[int]) -> dict[str, Value]:
    x, words, text = (unit(given[k] + 0.3) for k in ("X", "T", "tcls"))
    alike = x @ words[np.array(is_word, bool)].T

    def cosine(s: frozenset[int]) -> float:
        z = x[sorted(s)].sum(0)
        return float(z @ text / np.linalg.norm(z)) if s else 0.0

    def drop(s: frozenset[int]) -> float:
        kept = alike[sorted(s)]
        return (kept.max(1).mean() + kept.max(0).mean()) / 2 if s else 0.0

    def zero(s: frozenset[int]) -> float:
        kept = np.maximum(alike, 0) * np.isin(np.arange(len(x)), sorted(s))[:, None]
        return (kept.max(1).mean() + kept.max(0).mean()) / 2

    return {"global": cosine, "fine_drop": drop, "fine_zero": zero}


def test_tokens_of_another_grid(tmp_path: Path) -> None:
    spec, _ = stored("loupe", "token_game")
    given = renamed(spec, {"X": [4, 5], "T": [3, 5], "tcls": [5]})
    modes = ["fine_zero", "global"]
    spec["config"] |= {"n": 4, "grid": 2, "text_mask": [1, 0, 1], "modes": modes}
    spec["config"]["regions"] = [[1, 3], [0, 2, 3], [0, 1, 2, 3], [2]]
    arrays, players = {}, [frozenset([i]) for i in range(4)]
    for mode in modes:
        value = token_values(given, [1, 0, 1])[mode]
        arrays[f"v_{mode}"] = tabled(value, 4)
        arrays[f"shapley_{mode}"] = np.array([shapley(value, players, i) for i in range(4)])
        of_regions = [interaction(value, 4, region)[0] for region in spec["config"]["regions"]]
        arrays[f"J_{mode}"] = np.array(of_regions)
    passes(write(tmp_path, "twin", spec, arrays))
    spec["config"]["text_mask"] = [1, 1, 1]
    fails(write(tmp_path, "with its padding", spec, some(arrays, "v_fine_zero")), "v_fine_zero")


@pytest.mark.parametrize("mode", ["global", "fine_drop"])
def test_samples_of_another_region(tmp_path: Path, mode: str) -> None:
    spec, _ = stored("loupe", "mc_estimator")
    given = renamed(spec, {"X": [5, 6], "T": [2, 6], "tcls": [6]})
    samples = [[[0, 2, 3], 1], [[3, 0, 2], 3], [[2, 0, 3], 0], [[2, 3, 0], 2]]
    spec["config"] |= {"n": 5, "region": [4, 1], "samples": samples, "mode": mode}
    spec["config"]["text_mask"] = [1, 1]
    value = token_values(given, [1, 1])[mode]

    def delta(s: frozenset[int]) -> float:
        return value(s | {1, 4}) + value(s) - value(s | {1}) - value(s | {4})

    drawn = [frozenset(order[:size]) for order, size in samples]
    each = np.array([delta(s) for s in drawn])
    mirrored = np.array([delta(frozenset([0, 2, 3]) - s) for s in drawn])
    arrays = {
        "delta": each, "estimate": each.mean(), "stderr": each.std(ddof=1) / 2,
        "delta_antithetic": mirrored, "estimate_antithetic": (each + mirrored).mean() / 2,
        "exact": np.array(interaction(value, 5, [1, 4])[0]),
    }  # fmt: skip
    passes(write(tmp_path, "twin", spec, {k: np.asarray(v) for k, v in arrays.items()}))
    fails(write(tmp_path, "wrong", spec, {"stderr": np.asarray(each.std() / 2)}), "stderr")


def test_semantics_of_other_numbers(tmp_path: Path) -> None:
    spec, _ = stored("loupe", "semantic_game")
    given = renamed(spec, {"HI": [2, 4], "HT": [3, 4]})
    spec["config"] |= {"M": 2, "N": 3, "tau_a": 0.4, "tau_j": 0.1}
    alignment = unit(given["HI"]) @ unit(given["HT"]).T
    shares = softmax(alignment / 0.4)

    def value(s: frozenset[int]) -> float:
        rows, columns = [i for i in s if i < 2], [i - 2 for i in s if i >= 2]
        kept = shares[np.ix_(rows, columns)]
        return (kept.max(1).mean() + kept.max(0).mean()) / 2 if kept.size else 0.0

    found = np.array([[interaction(value, 5, [i, 2 + j])[0] for j in range(3)] for i in range(2)])
    positive = np.maximum(found, 0)
    relu = positive / np.maximum(positive.sum(1, keepdims=True), 1e-30)
    soft = softmax(found / 0.1)
    rows = (relu.sum(1) > 0).sum()
    arrays = {
        "A": alignment, "A_tilde": shares, "v": tabled(value, 5), "J": found,
        "p_full": np.array(value(frozenset(range(5)))), "target_relu": relu, "target_softmax": soft,
        "loss_relu": np.array(-(relu * np.log(shares)).sum() / rows),
        "loss_softmax": np.array(-(soft * np.log(shares)).sum() / 2),
    }  # fmt: skip
    passes(write(tmp_path, "twin", spec, arrays))
    spec["config"]["tau_j"] = 0.2
    fails(write(tmp_path, "wrong", spec, some(arrays, "target_softmax")), "target_softmax")


# --- networks and losses -------------------------------------------------------------------------


def test_losses_of_another_batch(tmp_path: Path) -> None:
    spec, _ = stored("loupe", "losses")
    shapes = {
        "I": [3, 4], "Tx": [3, 4], "Xtok": [3, 5, 4], "Wtok": [3, 2, 4],
        "Jt": [3, 2], "slogit": [3, 2], "mu": [3, 2], "logvar": [3, 2],
    }  # fmt: skip
    given = renamed(spec, shapes)
    is_word = np.array([[1, 1], [1, 0], [1, 1]], bool)
    spec["config"] |= {"B": 3, "logit_scale": 7.5, "text_mask": is_word.astype(int).tolist()}
    spec["config"] |= {"logvar": "rule(scale .5) - 5.5", "tau_unc": 0.06}
    images, texts = unit(given["I"]), unit(given["Tx"])
    logits = 7.5 * images @ texts.T
    rows, columns = softmax(logits, 1), softmax(logits, 0)
    slope = 7.5 * (rows + columns - 2 * np.eye(3)) / 6
    alike = np.einsum("ind,tmd->itnm", unit(given["Xtok"]), unit(given["Wtok"]))
    of_image = np.where(is_word[None, :, None], alike, -np.inf).max(3).mean(2)
    of_text = (alike.max(2) * is_word).sum(2) / is_word.sum(1)
    jt = given["Jt"]
    low, high = jt.min(1, keepdims=True), jt.max(1, keepdims=True)
    target, s = (jt - low) / (high - low + 1e-8), sigmoid(given["slogit"])
    log_variance = given["logvar"] - 5.5
    off, precision = jt - given["mu"], np.exp(-log_variance)
    arrays = {
        "cmc": -(np.log(np.diag(rows)) + np.log(np.diag(columns))).mean() / 2,
        "cmc_grad_I": slope @ texts, "cmc_grad_T": slope.T @ images,
        "fine_i2t": of_image, "fine_t2i": of_text, "fine_sym": (of_image + of_text) / 2,
        "tsa_target": target, "tsa": -(target * np.log(s) + (1 - target) * np.log(1 - s)).mean(),
        "unsil": (precision * off**2 + log_variance).mean() / 2,
        "unsil_grad_mu": -precision * off / 6,
        "unsil_grad_logvar": (1 - precision * off**2) / 12,
        "sample_mask": (np.exp(log_variance / 2) > 0.06).astype(float),
    }  # fmt: skip
    assert 0 < arrays["sample_mask"].mean() < 1
    passes(write(tmp_path, "twin", spec, {k: np.asarray(v) for k, v in arrays.items()}))
    spec["config"]["tau_unc"] = 0.2
    fails(write(tmp_path, "wrong", spec, some(arrays, "sample_mask")), "sample_mask")


def test_regions_of_another_grid(tmp_path: Path) -> None:
    spec, _ = stored("loupe", "region_generation")
    tokens = renamed(spec, {"rgmX": [9, 4]})["rgmX"]
    shapes = {"fc1.weight": [6, 4], "fc1.bias": [6], "fc2.weight": [5, 6], "fc2.bias": [5]}
    w = weighted(spec, shapes)
    spec["config"] = {"grid": 3, "M": 3, "nms_iou": 0.3, "soft_T": 0.1}
    o = sigmoid(
        gelu(tokens @ w["fc1.weight"].T + w["fc1.bias"]) @ w["fc2.weight"].T + w["fc2.bias"]
    )
    place = np.array([[x, y] for y in range(3) for x in range(3)])
    centre, half = (place + o[:, 1:3]) / 3, o[:, 3:] / 2
    boxes, patches = np.concatenate([centre - half, centre + half], 1), (place + 0.5) / 3
    away = np.abs(patches[None] - centre[:, None])
    hard = (away <= half[:, None]).all(2) | np.eye(9, dtype=bool)
    soft = sigmoid((half[:, None] - away) / 0.1).prod(2)
    keep: list[int] = []
    for i in np.argsort(-o[:, 0], kind="stable"):
        if len(keep) < 3 and all(overlap(boxes[i], boxes[j]) <= 0.3 for j in keep):
            keep.append(int(i))
    arrays = {
        "scores": o[:, 0], "boxes": boxes, "hard": hard.astype(float), "soft": soft,
        "keep": np.array(keep),
        "region_hard": hard[keep] @ tokens / hard[keep].sum(1, keepdims=True),
        "region_soft": soft[keep] @ tokens / soft[keep].sum(1, keepdims=True),
    }  # fmt: skip
    passes(write(tmp_path, "twin", spec, arrays))
    spec["config"]["soft_T"] = 0.05
    fails(write(tmp_path, "wrong", spec, some(arrays, "soft")), "soft")


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.maximum(high - low, 0).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


def test_a_predictor_of_other_sizes(tmp_path: Path) -> None:
    spec, _ = stored("loupe", "unsil_forward")
    given = renamed(spec, {"uX": [4, 3], "ut": [3]})
    shapes = {
        "q.weight": [3, 3], "k.weight": [3, 3], "v.weight": [3, 3], "fc1.weight": [5, 16],
        "fc1.bias": [5], "fc2.weight": [5, 5], "fc2.bias": [5], "out.weight": [2, 5],
        "out.bias": [2],
    }  # fmt: skip
    w = weighted(spec, shapes)
    masks = [[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 1]]
    spec["config"] = {"n": 4, "d": 3, "hidden": 5, "region_masks": masks}
    x, t = given["uX"], given["ut"]
    scores = x @ w["k.weight"].T @ (w["q.weight"] @ t) / np.sqrt(3)
    rows = []
    for mask in np.array(masks, bool):
        parts = [
            softmax(scores[m]) @ (x[m] @ w["v.weight"].T) if m.any() else np.zeros(3)
            for m in (mask, ~mask)
        ]
        size = [np.log(mask.sum()) / np.log(4)]
        f = np.concatenate([*parts, t, *(part * t for part in parts), size])
        f = gelu(w["fc1.weight"] @ f + w["fc1.bias"])
        f = gelu(w["fc2.weight"] @ f + w["fc2.bias"])
        rows.append(w["out.weight"] @ f + w["out.bias"])
    passes(write(tmp_path, "twin", spec, {"out": np.array(rows)}))
    fails(write(tmp_path, "wrong", spec, {"out": np.array(rows[::-1])}), "out")


# --- metrics and texts ---------------------------------------------------------------------------


def test_retrieval_of_other_numbers(tmp_path: Path) -> None:
    spec, _ = stored("loupe", "retrieval_recall")
    raw = renamed(spec, {"S": [7, 21]})["S"]
    spec["config"] |= {"images": 7, "captions_per_image": 3, "K": [1, 2, 4, 6]}
    owner = np.arange(21) // 3
    similarity = np.round(raw + 2 * (owner == np.arange(7)[:, None]), 1)
    texts = [np.argsort(-row, kind="stable").tolist() for row in similarity]
    pictures = [np.argsort(-row, kind="stable").tolist() for row in similarity.T]
    of_image = np.array([min(texts[i].index(3 * i + k) for k in range(3)) for i in range(7)])
    of_text = np.array([pictures[c].index(owner[c]) for c in range(21)])
    both = {"i2t": of_image, "t2i": of_text}
    arrays = {f"rank_{way}": ranks for way, ranks in both.items()}
    for way, ranks in both.items():
        arrays[f"recall_{way}"] = np.array([100 * (ranks < k).mean() for k in (1, 2, 4, 6)])
        arrays[f"medr_{way}"] = np.array(np.median(ranks) + 1)
    total = sum(100 * (ranks < k).mean() for ranks in both.values() for k in (1, 2, 4, 6))
    arrays["rsum"] = np.array(total)
    passes(write(tmp_path, "twin", spec, arrays))
    fails(write(tmp_path, "wrong", spec, {"rank_t2i": 20 - of_text}), "rank_t2i")


def test_detections_of_other_images(tmp_path: Path) -> None:
    spec, _ = stored("loupe", "detection_ap")
    truth = [
        [0, 0, 10, 10, 30, 30],
        [0, 0, 40, 40, 60, 60],
        [1, 0, 0, 0, 20, 20],
        [1, 1, 5, 5, 9, 9],
    ]
    found = [
        [0, 0, 0.9, 12, 12, 30, 30], [0, 0, 0.8, 70, 70, 80, 80], [1, 0, 0.7, 0, 0, 16, 20],
        [0, 0, 0.3, 40, 40, 60, 54], [1, 1, 0.2, 50, 50, 60, 60],
    ]  # fmt: skip
    spec["config"] |= {
        "images": 2, "classes": 3, "gt": truth, "detections": found, "thresholds": [0.4, 0.75]
    }  # fmt: skip

    def averages(hits: list[int]) -> tuple[float, float]:
        """Of three true objects."""
        right = np.cumsum(hits)
        precision = right / np.arange(1, len(hits) + 1)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        levels = np.linspace(0, 1, 101)
        at = [best[np.argmax(right / 3 >= r)] if right[-1] / 3 >= r else 0 for r in levels]
        return float(np.mean(at)), float((np.diff(right, prepend=0) / 3 * best).sum())

    # IoU of the first class's detections by score: 0.81, 0, 0.8, 0.7
    arrays = {}
    for name, hits in (("40", [1, 0, 1, 1]), ("75", [1, 0, 1, 0])):
        for how, value in zip(("101", "all"), averages(hits), strict=True):
            arrays[f"ap{name}_{how}"] = np.array(
                [value, 0.0, np.nan]
            )  # nothing is of the third class
            arrays[f"map{name}_{how}"] = np.array(value / 2)
    passes(write(tmp_path, "twin", spec, arrays))
    fails(write(tmp_path, "wrong", spec, {"ap75_all": arrays["ap40_all"]}), "ap75_all")


def test_grounding_of_other_phrases(tmp_path: Path) -> None:
    spec, _ = stored("loupe", "grounding")
    truth, found = [[0, 0, 10, 10], [0, 0, 4, 4], [2, 2, 6, 6]], [[0, 0, 10, 5], [4, 0, 8, 4]]
    spec["config"] = {"gt": truth, "pred": [*found, [2, 2, 6, 6]]}
    spec["config"]["points"] = [[0, 0], [4, 1], [5.9, 2]]
    arrays = {
        "iou": [0.5, 0, 1], "acc50": 200 / 3, "acc30": 200 / 3, "pointing": 200 / 3, "miou": 0.5
    }  # fmt: skip
    passes(write(tmp_path, "twin", spec, {k: np.array(v, float) for k, v in arrays.items()}))
    fails(write(tmp_path, "wrong", spec, {"pointing": np.array(100.0)}), "pointing")


def test_classes_of_other_prompts(tmp_path: Path) -> None:
    spec, _ = stored("loupe", "zero_shot")
    given = renamed(spec, {"zr": [3, 6], "ze": [2, 5, 6], "zs": [3], "zq": [6]})
    spec["config"]["tau"] = 0.2
    classes = unit(unit(given["ze"]).mean(1))
    h, s = unit(given["zr"]), sigmoid(given["zs"])
    shares = softmax(h @ classes.T / 0.2)
    scores = s * softmax(h @ unit(given["zq"]) / 0.2)
    arrays = {
        "class_embed": classes, "class_prob": shares, "det_score": s[:, None] * shares,
        "label": shares.argmax(1), "ground_score": scores, "ground_index": scores.argmax(),
    }  # fmt: skip
    passes(write(tmp_path, "twin", spec, {k: np.asarray(v) for k, v in arrays.items()}))
    fails(write(tmp_path, "wrong", spec, {"label": 1 - arrays["label"]}), "label")


def test_phrases_of_other_captions(tmp_path: Path) -> None:
    spec, _ = stored("loupe", "phrase_chunker")
    texts = ["Her red hat; 3 dogs!", "the", "", "that old man's dog-cart behind a", "A\ta b  c"]
    spans = [[[0, 11], [13, 19]], [], [], [[5, 23]], [[2, 8]]]
    words = [["Her red hat", "3 dogs"], [], [], ["old man's dog-cart"], ["a b  c"]]
    spec["config"] = {"texts": texts, "spans": spans, "phrases": words}
    counts = {"count": np.array([2, 0, 0, 1, 1])}
    passes(write(tmp_path, "twin", spec, counts))
    spec["config"]["spans"] = [[[0, 11]], *spans[1:]]
    fails(write(tmp_path, "wrong", spec, counts), "")


# --- encoders ------------------------------------------------------------------------------------


def layout(spec: dict, shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Weights of an encoder under another prefix, by their rule."""
    spec["weights"] = [[key, shape] for key, shape in shapes.items()]
    spec["config"]["key_prefix"] = "twin."
    found = {}
    for key, shape in shapes.items():
        is_norm = key.endswith("weight") and "norm" in key.lower()
        value = normals(f"twin.{key}", shape, 1.0 if is_norm else spec["weight_scale"])
        found[key] = (1 + 0.1 * value if is_norm else value).astype(float)
    return found


def linear(w: dict[str, np.ndarray], key: str, x: np.ndarray) -> np.ndarray:
    return x @ w[f"{key}.weight"].T + w.get(f"{key}.bias", 0)


def norm(w: dict[str, np.ndarray], key: str, x: np.ndarray, eps: float) -> np.ndarray:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * w[f"{key}.weight"] + w[f"{key}.bias"]


def both(key: str, rows: int, columns: int = 0) -> dict[str, list[int]]:
    return {f"{key}.weight": [rows, columns] if columns else [rows], f"{key}.bias": [rows]}


def test_a_text_encoder_of_another_depth(tmp_path: Path) -> None:
    spec, _ = stored("loupe", "bert_small")
    words, kept = [[3, 1, 4], [2, 5, 0]], [[1, 1, 1], [1, 1, 0]]
    spec["config"] |= {
        "vocab_size": 6, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 5, "max_position_embeddings": 7, "type_vocab_size": 1,
        "input_ids": words, "attention_mask": kept,
    }  # fmt: skip
    tables = {"word": 6, "position": 7, "token_type": 1}
    shapes = {f"embeddings.{k}_embeddings.weight": [n, 4] for k, n in tables.items()}
    shapes |= both("embeddings.LayerNorm", 4)
    for part in ("self.query", "self.key", "self.value", "output.dense"):
        shapes |= both(f"encoder.layer.0.attention.{part}", 4, 4)
    shapes |= both("encoder.layer.0.attention.output.LayerNorm", 4)
    shapes |= both("encoder.layer.0.intermediate.dense", 5, 4)
    shapes |= both("encoder.layer.0.output.dense", 4, 5) | both(
        "encoder.layer.0.output.LayerNorm", 4
    )
    shapes |= both("pooler.dense", 4, 4)
    w = layout(spec, shapes)
    x = w["embeddings.word_embeddings.weight"][np.array(words)]
    x = x + w["embeddings.position_embeddings.weight"][:3]
    first = norm(w, "embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"], 1e-12)
    layer, mixed = "encoder.layer.0.", np.zeros_like(first)
    q, k, v = (
        linear(w, f"{layer}attention.self.{part}", first) for part in ("query", "key", "value")
    )
    for text, head, token in np.ndindex(2, 2, 3):
        own, there = slice(2 * head, 2 * head + 2), np.array(kept[text], bool)
        scores = k[text, there, own] @ q[text, token, own] / np.sqrt(2)
        mixed[text, token, own] = softmax(scores) @ v[text, there, own]
    x = linear(w, f"{layer}attention.output.dense", mixed) + first
    x = norm(w, f"{layer}attention.output.LayerNorm", x, 1e-12)
    hidden = gelu(linear(w, f"{layer}intermediate.dense", x))
    last = linear(w, f"{layer}output.dense", hidden) + x
    last = norm(w, f"{layer}output.LayerNorm", last, 1e-12)
    arrays = {
        "last": last, "hidden0": first, "hidden1": last,
        "pooled": np.tanh(linear(w, "pooler.dense", last[:, 0])),
    }  # fmt: skip
    passes(write(tmp_path, "twin", spec, arrays))
    spec["config"]["attention_mask"] = [[1, 1, 1], [1, 1, 1]]
    fails(write(tmp_path, "with its padding", spec, some(arrays, "last")), "last")


def test_an_image_encoder_of_another_window(tmp_path: Path) -> None:
    """A stage of two blocks whose windows of 3 do not fill 8 columns, a merge, and one block."""
    spec, _ = stored("loupe", "swin_tiny")
    spec["config"] |= {
        "image_size": 12, "patch_size": 2, "embed_dim": 4, "depths": [2, 1], "num_heads": [2, 4],
        "window_size": 3, "mlp_ratio": 1.5,
    }  # fmt: skip
    image = renamed(spec, {"pix": [1, 3, 12, 16]})["pix"][0]
    shapes = {"embeddings.patch_embeddings.projection.weight": [4, 3, 2, 2]}
    shapes |= {"embeddings.patch_embeddings.projection.bias": [4]} | both("embeddings.norm", 4)
    for stage, number, dim, heads in ((0, 0, 4, 2), (0, 1, 4, 2), (1, 0, 8, 4)):
        block = f"encoder.layers.{stage}.blocks.{number}."
        for part in "qkvo":
            shapes |= both(f"{block}attention.{part}_proj", dim, dim)
        table = f"{block}attention.relative_position_bias.relative_position_bias_table"
        shapes |= {table: [25, heads]}
        shapes |= both(f"{block}layernorm_before", dim) | both(f"{block}layernorm_after", dim)
        shapes |= both(f"{block}mlp.fc1", 3 * dim // 2, dim)
        shapes |= both(f"{block}mlp.fc2", dim, 3 * dim // 2)
    shapes |= {"encoder.layers.0.downsample.reduction.weight": [8, 16]}
    shapes |= both("encoder.layers.0.downsample.norm", 16) | both("layernorm", 8)
    w = layout(spec, shapes)
    patches = image.reshape(3, 6, 2, 8, 2).transpose(1, 3, 0, 2, 4).reshape(6, 8, 12)
    kernel = "embeddings.patch_embeddings.projection"
    x = patches @ w[f"{kernel}.weight"].reshape(4, 12).T + w[f"{kernel}.bias"]
    first = norm(w, "embeddings.norm", x, 1e-5)
    x = swin_block(w, "encoder.layers.0.blocks.0.", first, 2, shift=0)
    x = swin_block(w, "encoder.layers.0.blocks.1.", x, 2, shift=1)
    x = np.concatenate([x[i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))], 2)
    x = norm(w, "encoder.layers.0.downsample.norm", x, 1e-5)
    second = linear(w, "encoder.layers.0.downsample.reduction", x)  # 3 x 4
    third = swin_block(w, "encoder.layers.1.blocks.0.", second, 4, shift=0)
    last = norm(w, "layernorm", third, 1e-5).reshape(1, 12, 8)
    arrays = {
        "last": last, "pooled": last.mean(1), "hidden0": first.reshape(1, 48, 4),
        "hidden1": second.reshape(1, 12, 8), "hidden2": third.reshape(1, 12, 8),
    }  # fmt: skip
    passes(write(tmp_path, "twin", spec, arrays))
    fails(write(tmp_path, "wrong", spec, {"hidden1": arrays["hidden2"]}), "hidden1")


def swin_block(
    w: dict[str, np.ndarray], block: str, x: np.ndarray, heads: int, shift: int
) -> np.ndarray:
    """A block by its definition, query by query; windows of 3, the map filled up with zeros."""
    height, width, dim = x.shape
    filled = np.zeros((-(-height // 3) * 3, -(-width // 3) * 3, dim))
    filled[:height, :width] = norm(w, f"{block}layernorm_before", x, 1e-5)
    q, k, v = (linear(w, f"{block}attention.{part}_proj", filled) for part in "qkv")
    table = w[f"{block}attention.relative_position_bias.relative_position_bias_table"]
    mixed = np.zeros_like(filled)
    size = np.array(filled.shape[:2])
    for query in np.ndindex(*filled.shape[:2]):
        # places after the shift; the first rows and columns come last and are no neighbours
        at = (np.array(query) - shift) % size
        keys = [
            key
            for key in np.ndindex(*filled.shape[:2])
            if ((np.array(key) - shift) % size // 3 == at // 3).all()
            and ((np.array(key) < shift) == (np.array(query) < shift)).all()
        ]
        rows, columns = np.array(keys).T
        away = at - (np.array(keys) - shift) % size + 2
        for head in range(heads):
            some = slice(head * dim // heads, (head + 1) * dim // heads)
            scores = k[rows, columns, some] @ q[query][some] / np.sqrt(dim // heads)
            weight = softmax(scores + table[away[:, 0] * 5 + away[:, 1], head])
            mixed[query][some] = weight @ v[rows, columns, some]
    x = x + linear(w, f"{block}attention.o_proj", mixed)[:height, :width]
    hidden = gelu(linear(w, f"{block}mlp.fc1", norm(w, f"{block}layernorm_after", x, 1e-5)))
    return x + linear(w, f"{block}mlp.fc2", hidden)
