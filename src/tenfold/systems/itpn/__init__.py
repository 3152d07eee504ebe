"""iTPN: backbone and feature pyramid pre-trained together."""

from .system import Itpn

__all__ = ["Itpn"]
