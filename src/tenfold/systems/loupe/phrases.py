"""Noun phrases of a caption by two lists of words: no parser, no model.

A phrase begins with an article or a possessive, or with the first other word, and ends before the
next one, before punctuation and before words that no noun phrase holds: verbs and prepositions that
captions use. It is crude ("a blue and white cup" gives "a blue" and "white cup").
"""

from __future__ import annotations

import re

TOKEN = re.compile(r"[A-Za-z][A-Za-z'-]*|[0-9]+|[^\sA-Za-z0-9]")
MOST = 8
"""Phrases of a caption; further ones are left out."""
BEGIN = frozenset(
    "a an the this that these those some any each every its his her their my our your".split()
)
"""Words that begin a phrase and make none alone."""
BREAK = frozenset(
    """is are was were be been being am has have had do does did can could will would of in on at by
    to from with without into onto over under above below near next behind beside between through
    across against along around inside outside off up down out for as and or but while that which
    who whose where when than then very it he she they them him there sitting standing walking
    riding holding looking laying lying running playing wearing eating flying parked placed set
    filled sits stands holds rides looks left right front top""".split()
)
"""Words between phrases; a word of both lists is one of these."""


def spans(text: str, most: int = MOST) -> list[tuple[int, int]]:
    """Places [start, end) of a caption's noun phrases, in characters."""
    found: list[tuple[int, int]] = []
    start = end = -1
    has_word = False
    for match in [*TOKEN.finditer(text), None]:
        word = match[0].lower() if match else ""
        ends = not word or word in BREAK or not (word[0].isascii() and word[0].isalnum())
        if ends or word in BEGIN:
            if has_word:
                found.append((start, end))
            start, has_word = -1, False
        if ends or match is None:
            continue
        start = match.start() if start < 0 else start
        end, has_word = match.end(), has_word or word not in BEGIN
    return found[:most]
