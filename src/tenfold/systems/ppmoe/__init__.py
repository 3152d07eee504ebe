"""PPMoE: mixture-of-experts language models on pipelines."""

from .config import PredictOptions
from .system import Ppmoe

__all__ = ["Ppmoe", "PredictOptions"]
