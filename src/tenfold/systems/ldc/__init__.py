"""LDC: few-shot class-incremental learning by learnable distribution calibration."""

from .classifier import Classifier
from .config import PredictOptions
from .system import Ldc

__all__ = ["Classifier", "Ldc", "PredictOptions"]
