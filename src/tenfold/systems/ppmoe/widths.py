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

    def require_whole_heads(self, is_rotary: bool, name: str = "{}") -> None:
        """Raise ValueError if heads do not fit; `name` is how the field `{}` is called."""
        hidden, heads, size = (name.format(field) for field in ("hidden", "heads", "head_size"))
        if self.hidden % self.heads and not self.head_size:
            raise ValueError(
                f"{hidden} {self.hidden} is not divisible by {heads} {self.heads}; change one, or "
                f"give {size}"
            )
        if self.heads % self.groups:
            raise ValueError(
                f"{heads} {self.heads} is not divisible by {name.format('kv_heads')} "
                f"{self.kv_heads}; change one"
            )
        if is_rotary and self.head_width % 2:
            raise ValueError(f"rotary positions need an even head size, got {self.head_width}")
