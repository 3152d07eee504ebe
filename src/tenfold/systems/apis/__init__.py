"""APIS: active pointly-supervised instance segmentation (arXiv 2207.11493, ECCV 2022)."""

from .config import Config, PredictOptions
from .evaluation import Details
from .system import Apis

__all__ = ["Apis", "Config", "Details", "PredictOptions"]
