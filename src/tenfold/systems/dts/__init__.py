"""DTS: a segmentation network adapted to unlabelled images by two teacher-student groups."""

from .config import Config, PredictOptions
from .evaluation import Details
from .system import Dts

__all__ = ["Config", "Details", "Dts", "PredictOptions"]
