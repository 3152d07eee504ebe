"""The table of texts: a name and a vector a concept, kept with the weights.

So a model is opened without the encoder that made the vectors, and a concept is added by a row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

VECTORS, ABOUT = "vectors", "about"
"""Tensors of a table among those of a network: the rows, and names and space as JSON in bytes."""
MOST_ABOUT = 2**24
"""Bytes of the latter that are read; 233 names of ADE20K need 4000."""


class TextTable(nn.Module):
    """Vectors of concepts in one space of texts; frozen, or learned with the network."""

    vectors: Tensor

    def __init__(self, names: Sequence[str], dim: int, space: str, learned: bool = False) -> None:
        """`space` names the encoder and what is done to its vectors; rows are 0 until `fill`."""
        super().__init__()
        self.names, self.space, self.learned = tuple(names), space, learned
        if len(set(names)) < len(self.names):
            twice = next(name for i, name in enumerate(self.names) if name in self.names[:i])
            raise ValueError(f"the table of texts has {twice!r} twice; give each concept one row")
        rows = torch.zeros(len(self.names), dim)
        if learned:
            nn.init.normal_(rows)
            self.vectors = nn.Parameter(rows)
        else:
            self.register_buffer(VECTORS, rows)

    @property
    def dim(self) -> int:
        """Numbers of a vector."""
        return self.vectors.shape[1]

    @torch.no_grad()
    def fill(self, vectors: Float[Tensor, "name dim"]) -> None:
        """Give every name its vector."""
        self.vectors.copy_(vectors)

    @torch.no_grad()
    def add(self, name: str, vector: Float[Tensor, " dim"], space: str) -> None:
        """Append a row; the others, and what is made of them, stay as they are.

        Raises:
            ValueError: The name is there, or the vector is of another space.
        """
        if name in self.names:
            raise ValueError(f"the table of texts has {name!r} already; ask for it, or remove it")
        if self.learned:
            raise ValueError(
                f"{name!r} has no text vector: this table was learned with the network, a row a "
                "trained name; train with --text.source table or clip to add concepts"
            )
        self._require_space(space, len(vector), f"the vector of {name!r}")
        row = vector.to(self.vectors)[None]
        self.vectors = torch.cat([self.vectors, row])
        self.names = (*self.names, name)

    def rows(self, names: Iterable[str]) -> list[int]:
        """Numbers of the rows of these names; ValueError for one that is not there."""
        place = {name: row for row, name in enumerate(self.names)}
        return [place[name] if name in place else self._refuse(name) for name in names]

    def rows_of(self, names: Iterable[str] | None = None) -> Float[Tensor, "name dim"]:
        """Vectors of these names in their order, or of all."""
        return self.vectors if names is None else self.vectors[self.rows(names)]

    def _refuse(self, name: str) -> int:
        raise ValueError(
            f"no concept {name!r} in the table of texts; {nearest(name, self.names)}, or add it"
        )

    def _require_space(self, space: str, dim: int, what: str) -> None:
        if dim != self.dim:
            raise ValueError(
                f"{what} has {dim} numbers ({space}), the table of texts {self.dim} "
                f"({self.space}); take texts of the same encoder"
            )
        if space != self.space:
            raise ValueError(
                f"{what} is of the text space {space!r}, the table of texts of {self.space!r}; "
                "take texts of the same encoder, prompt and centring"
            )

    # --- with the weights -----------------------------------------------------------------------

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        about = json.dumps({"space": self.space, "names": self.names}).encode()
        destination[prefix + ABOUT] = torch.frombuffer(bytearray(about), dtype=torch.uint8)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Tensor], prefix: str, local_metadata: Any, strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        """Take the names and rows of a state, however many; its space has to be this one's."""
        own = {prefix + VECTORS, prefix + ABOUT}
        unexpected_keys += [k for k in state_dict if k.startswith(prefix) and k not in own]
        missing_keys += sorted(own - state_dict.keys())
        if missing_keys and not own <= state_dict.keys():
            return
        vectors = state_dict[prefix + VECTORS]
        try:
            space, names = _about(state_dict[prefix + ABOUT])
            if vectors.ndim != 2 or len(names) != len(vectors):
                raise ValueError(
                    f"the table of texts has {len(names)} names for vectors of shape "
                    f"{tuple(vectors.shape)}"
                )
            self._require_space(space, vectors.shape[1], "the table of texts of these weights")
        except ValueError as error:
            error_msgs.append(str(error))
            return
        with torch.no_grad():
            if vectors.shape == self.vectors.shape:
                self.vectors.copy_(vectors)  # optimiser and processes know this tensor
            else:
                found = vectors.to(self.vectors).clone()
                self.vectors = nn.Parameter(found) if self.learned else found
        self.names = names


def _about(tensor: Tensor) -> tuple[str, tuple[str, ...]]:
    """Space and names of a table, from the bytes beside it."""
    if tensor.dtype != torch.uint8 or tensor.ndim != 1 or len(tensor) > MOST_ABOUT:
        raise ValueError(f"the names of the table of texts are no bytes: {tuple(tensor.shape)}")
    try:
        found = json.loads(bytes(tensor.tolist()))
        space, names = found["space"], tuple(found["names"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the names of the table of texts cannot be read: {error}") from error
    if not isinstance(space, str) or not all(isinstance(name, str) for name in names):
        raise ValueError("the names of the table of texts are no texts")
    if len(set(names)) < len(names):
        raise ValueError("the table of texts has a name twice")
    return space, names


def nearest(name: str, known: Sequence[str]) -> str:
    """The part of a message that says which names are near."""
    near = get_close_matches(name.lower().replace("_", " "), known, n=3, cutoff=0.5)
    if not near:
        folded = {other.lower().replace("_", " "): other for other in known}
        near = [folded[n] for n in get_close_matches(name.lower(), folded, n=3, cutoff=0.5)]
    if near:
        return f"the nearest are {', '.join(near)}"
    return f"there are {len(known)}, among them {', '.join(known[:5])}"
