"""PPMoE: mixture-of-experts language models on pipelines."""

from .system import Ppmoe

__all__ = ["Ppmoe"]
