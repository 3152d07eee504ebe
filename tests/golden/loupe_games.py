"""Checks of LOUPE's games: exact, of tokens, sampled, of semantics."""

from __future__ import annotations

import torch

from golden.harness import Case
from golden.loupe_fill import EXACT, direction, given, regions
from tenfold.systems.loupe import games, loss, scores, semantics
from tenfold.systems.loupe.games import exact, sampled

SHIFT = 0.3
"""Added to every vector of the token games before it is normalised."""


def check_shapley_exact(case: Case) -> None:
    config, values = case.spec["config"], given(case, "v_table")
    values[0] = 0
    some = regions(config["coalitions"], config["n"])
    got = {
        "shapley": exact.values(values), "sii2": exact.pairs(values),
        "banzhaf2": exact.pairs(values, 0.5), "mobius": exact.moebius(values),
        "J": exact.interactions(values, some), "phi_group": exact.group_values(values, some),
    }  # fmt: skip
    case.compare_all(got, EXACT)


def _score(case: Case, mode: str) -> exact.Score:
    patches = direction(case, "X", SHIFT)
    if mode == "global":
        return scores.global_cosine(patches, direction(case, "tcls", SHIFT))
    is_word = torch.tensor(case.spec["config"]["text_mask"]).bool()
    alike = scores.similarities(patches, direction(case, "T", SHIFT), is_word)
    return {"fine_drop": scores.fine_drop, "fine_zero": scores.fine_zero}[mode](alike)


def check_token_game(case: Case) -> None:
    config, got = case.spec["config"], {}
    some = regions(config["regions"], config["n"])
    for mode in config["modes"]:
        values = exact.table(_score(case, mode), config["n"])
        got[f"v_{mode}"], got[f"shapley_{mode}"] = values, exact.values(values)
        got[f"J_{mode}"] = exact.interactions(values, some)
        if mode == "fine_zero":
            assert (got[f"J_{mode}"] <= 1e-12).all()
    case.compare_all(got, EXACT)


def check_mc_estimator(case: Case) -> None:
    config = case.spec["config"]
    orders, sizes = zip(*config["samples"], strict=True)
    some, score = regions([config["region"]], config["n"]), _score(case, config["mode"])
    plain, mirrored = (
        games.given(list(orders), list(sizes), config["n"], antithetic)
        for antithetic in (False, True)
    )
    found = sampled.interactions(score, some, draws=plain)
    count = len(sizes)
    each = [
        sampled.interactions(score, some, draws=games.Draws(one, plain.ends, False, False)).value
        for one in mirrored.masks.split(1, 1)
    ]
    got = {
        "estimate": found.value[0], "stderr": found.standard_error[0],
        "estimate_antithetic": sampled.interactions(score, some, draws=mirrored).value[0],
        "delta": torch.cat(each[:count]), "delta_antithetic": torch.cat(each[count:]),
        "exact": exact.interactions(exact.table(score, config["n"]), some)[0],
    }  # fmt: skip
    case.compare_all(got, EXACT)
    if config["mode"] == "global":  # the batched closed form, on the same coalitions
        patches, text = direction(case, "X", SHIFT), direction(case, "tcls", SHIFT)
        same = games.Draws(mirrored.masks[None], mirrored.ends[None], True, False)
        found = games.tokens.interactions(patches[None], text[None, None], some[None], draws=same)
        case.compare("estimate_antithetic", found.value[0, 0, 0], **EXACT)


def check_semantic_game(case: Case) -> None:
    config = case.spec["config"]
    alignment = semantics.cosines(direction(case, "HI"), direction(case, "HT"))
    shares = semantics.shares(alignment, temperature=config["tau_a"])
    values = exact.table(semantics.score(shares), config["M"] + config["N"])
    interaction = semantics.interactions(shares[None])
    by_table = exact.pairs(values)[: config["M"], config["M"] :]
    torch.testing.assert_close(interaction[0], by_table, rtol=0, atol=1e-12)
    got = {"A": alignment, "A_tilde": shares, "v": values, "p_full": values[-1]}
    got["J"] = interaction[0]
    for how in ("relu", "softmax"):
        target = semantics.targets(interaction, how, config["tau_j"])
        got[f"target_{how}"] = target[0]
        got[f"loss_{how}"] = loss.semantic_loss(shares[None], target)
    case.compare_all(got, EXACT)


KINDS = {
    "shapley_exact": check_shapley_exact,
    "token_game": check_token_game,
    "mc_estimator": check_mc_estimator,
    "semantic_game": check_semantic_game,
}
"""Kind of case -> its check."""
