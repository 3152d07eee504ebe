"""An explanation of a dual encoder's answer: which patches and words of a match act together."""

from . import page
from .explanation import Explanation, explain
from .judge import Quality, judge
from .options import ExplainOptions

__all__ = ["ExplainOptions", "Explanation", "Quality", "explain", "judge", "page"]
