"""Widths of a network that follow from others; no torch, as the planner wants it."""

from __future__ import annotations


class Widths:
    """Widths that follow from others where they are 0: of a model, and of a planned one."""

    hidden: int
    heads: int
    ffn: int
    expert_ffn: int
    kv_heads: int
    head_size: int

    @property
    def inner(self) -> int:
        """Inner width of a feed-forward network."""
        return self.ffn or 4 * self.hidden

    @property
    def head_width(self) -> int:
        """Width of a head."""
        return self.head_size or self.hidden // self.heads

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def expert_inner(self) -> int:
        """Inner width of an expert."""
        return self.expert_ffn or self.inner
