"""Pictures, units and concepts of a page as its scripts have them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from tenfold.data.images import runs
from tenfold.data.images.crops import crop_of
from tenfold.structures import Unit

from .annotated import Annotated
from .knowledge import KnowledgeBase

MOST = 2000
"""Places of concepts that are listed for the page; those below a unit are all there."""


def shown(now: Annotated, kb: KnowledgeBase, revision: int, image: int | None) -> dict[str, Any]:
    """A picture: its units, each after its whole, and what is known of their concepts."""
    places: dict[int, int] = {}
    units = []
    for unit in now.tree.walk():
        node = now.nodes[unit.id]
        above = None if unit.parent is None else now.tree.by_id[unit.parent]
        if above is None:
            colour = 0
        elif above.name == unit.name:  # objects of a region differ from one another
            colour = places[above.id] + now.tree.parts(above.id).index(unit)
        else:
            colour = now.nodes[above.id].children.index(node.id)
        places[unit.id] = colour
        units.append(
            {
                "id": unit.id, "class": unit.name, "parent": unit.parent, "node": node.id,
                "state": unit.state, "source": unit.source, "score": round(unit.score, 4),
                "colour": colour, "mask": key_of(unit),
                "area": _drawn(unit.mask["counts"], *unit.mask["size"])[1],
                "region": now.is_region(unit.id), "stopped": unit.id in now.stopped,
                "begun": now.is_begun(unit.id), "concepts": concepts(now, kb, unit),
            }
        )  # fmt: skip
    return {"image": image, "name": now.tree.image, "revision": revision, "units": units}


def concepts(now: Annotated, kb: KnowledgeBase, unit: Unit) -> list[dict[str, Any]]:
    """What is known of each concept below a unit's; nothing of a region to be told apart."""
    if now.is_region(unit.id):
        return []
    there: dict[str, list[int]] = {}
    for part in now.tree.parts(unit.id):
        there.setdefault(part.name, []).append(part.id)
    known, absent = now.known.get(unit.id, ()), now.absent.get(unit.id, ())
    wrong = {one.name for one in now.wrong.get(unit.id, ())}
    found = []
    for place, node in enumerate(now.concepts(unit.id, kb)):
        said = "there" if node.name in there else "absent" if node.name in absent else ""
        said = said or ("wrong" if node.name in wrong and node.name not in known else "")
        said = said or ("missed" if node.name in known else "unasked")
        found.append(
            {
                "name": node.name, "node": node.id, "colour": place, "is": said,
                "units": there.get(node.name, []),
            }
        )  # fmt: skip
    return found


def masks(units: Iterable[Unit]) -> dict[str, Any]:
    """Masks of units by their keys, as run lengths along the rows of crops."""
    return {key_of(u): _drawn(u.mask["counts"], *u.mask["size"])[0] for u in units}


def key_of(unit: Unit) -> str:
    """Name of a unit's mask, the same for the same pixels."""
    return hashlib.sha256(unit.mask["counts"].encode()).hexdigest()[:20]


@lru_cache(maxsize=4096)
def _drawn(counts: str, height: int, width: int) -> tuple[dict[str, Any], int]:
    """Run lengths of a mask, and its pixels."""
    code = {"size": [height, width], "counts": counts}
    return crop_of(runs.mask_of(code)).rows(), runs.area(code)


def nodes(kb: KnowledgeBase, own: KnowledgeBase) -> list[dict[str, Any]]:
    """The knowledge base from the root down, each concept at each place; `own` is that before.

    Of a part word that serves several wholes each place is listed.
    """
    before = own.by_id
    found: list[dict[str, Any]] = []
    left: list[tuple[int, int, list[str]]] = [(kb.root.id, 0, [])]
    while left and len(found) < MOST:
        number, level, path = left.pop()
        node = kb.node(number)
        found.append(
            {
                "id": number, "level": level, "name": node.name, "path": path,
                "synonyms": [*node.synonyms], "thing": node.thing,
                "added": number not in before, "parts": len(node.children),
            }
        )  # fmt: skip
        left += [(child, level + 1, [*path, kb.node(child).name]) for child in node.children[::-1]]
    return found
