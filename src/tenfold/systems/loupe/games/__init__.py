"""Cooperative games: values of players, interactions of pairs and of regions, for any score.

    score = lambda masks: ...  # (coalition, player) of bool -> (coalition) of float
    games.exact.pairs(games.exact.table(score, 12))
    games.sampled.pairs(score, 49, games.Sampling(samples=256)).standard_error

`exact`: up to 16 players. `sampled`: any number, with standard errors. `tokens`: the cosine of a
sum of tokens with a text, in closed form. `crossed`: two sides that are encoded apart, as CLIP's.
"""

from . import crossed, exact, sampled, tokens
from .draws import Draws, Estimate, Sampling, given
from .tokens import SummedTokens

__all__ = [
    "Draws",
    "Estimate",
    "Sampling",
    "SummedTokens",
    "crossed",
    "exact",
    "given",
    "sampled",
    "tokens",
]
