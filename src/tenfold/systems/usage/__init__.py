"""USAGE: seed areas for weakly supervised segmentation (arXiv 2303.07806, ICCV 2023)."""

from .config import Config, PredictOptions
from .evaluation import Details
from .system import Usage

__all__ = ["Config", "Details", "PredictOptions", "Usage"]
