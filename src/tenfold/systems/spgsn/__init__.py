"""SPGSN, skeleton-parted graph scattering networks (arXiv 2208.00368)."""

from .system import Spgsn

__all__ = ["Spgsn"]
