"""LDC: few-shot class-incremental learning by learnable distribution calibration."""

from .system import Ldc

__all__ = ["Ldc"]
