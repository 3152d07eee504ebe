"""Scripts of `claims/` as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

CLAIMS = Path(__file__).parents[3] / "claims"


def script(name: str) -> ModuleType:
    """A script of that folder, by its name without the ending."""
    described = importlib.util.spec_from_file_location(name, CLAIMS / f"{name}.py")
    assert described is not None and described.loader is not None
    module = importlib.util.module_from_spec(described)
    sys.modules[name] = module  # dataclasses look there
    described.loader.exec_module(module)
    return module
