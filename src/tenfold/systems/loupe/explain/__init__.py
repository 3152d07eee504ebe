"""An explanation of a dual encoder's answer: which patches and words of a match act together."""

from .explanation import Explanation, explain
from .options import ExplainOptions

__all__ = ["ExplainOptions", "Explanation", "explain"]
