"""iTPN: backbone and feature pyramid pre-trained together."""

from .config import Config, PredictOptions
from .evaluation import Details
from .system import Itpn

__all__ = ["Config", "Details", "Itpn", "PredictOptions"]
