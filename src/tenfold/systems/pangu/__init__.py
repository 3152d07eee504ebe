"""Pangu-Weather, a 3D Earth-specific transformer for global forecasts (arXiv 2211.02556)."""

from .system import PanguWeather

__all__ = ["PanguWeather"]
