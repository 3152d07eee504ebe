"""`tenfold doctor`: is this installation fit for work?"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tenfold.extras import EXTRAS, install

from .arguments import add_row, parse, show, table_of


def examine() -> Iterator[tuple[str, str, bool, str]]:
    """Problems: (what, what was found, whether it is good, what to do if not)."""
    import torch

    from tenfold.core import host

    version = platform.python_version()
    yield (
        "Python",
        version,
        tuple(map(int, version.split(".")[:2])) >= (3, 11),
        "needs 3.11 or newer",
    )
    major, minor = (int(v) for v in torch.__version__.split("+")[0].split(".")[:2])
    yield "torch", torch.__version__, (major, minor) >= (2, 13), "needs 2.13 or newer"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield "GPU", ", ".join(gpus) or "none (everything also runs on the CPU)", True, ""
    there, usable = os.cpu_count() or 1, host.cores()
    cores = f"{there} cores" if usable == there else f"{usable} of {there} cores may be used"
    yield "CPU", f"{cores}, torch uses {torch.get_num_threads()} threads", True, ""
    import torch.distributed as dist

    backends = [b for b in ("gloo", "nccl") if getattr(dist, f"is_{b}_available")()]
    yield "process groups", ", ".join(backends), bool(backends), "torch without distributed"
    if importlib.util.find_spec("torchvision"):
        try:
            importlib.import_module("torchvision")
            yield "torchvision", "present (tenfold does not use it)", True, ""
        except Exception as error:
            advice = "a broken torchvision breaks other packages: pip uninstall torchvision"
            yield "torchvision", f"does not import: {error}", False, advice
    for extra, modules in EXTRAS.items():
        missing = [m for m in modules if importlib.util.find_spec(m) is None]
        found = f"lacks {', '.join(missing)}\n{install(extra)}" if missing else "installed"
        yield f"extra {extra}", found, True, ""
    from tenfold.data import catalog

    try:
        root = catalog.root()
    except FileNotFoundError as error:
        yield "TENFOLD_DATA", "not a folder", False, str(error)
    else:
        present = [n for n in catalog.SETS if catalog.find(n)]
        found = f"{len(present)} data sets found" if root else "not set: generated data is used"
        yield "TENFOLD_DATA", found, True, ""
    try:
        with tempfile.TemporaryDirectory(dir=Path.cwd()):
            writable = True
    except OSError:
        writable = False
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    advice = "this folder cannot be written, or less than 1 GiB is free"
    yield "this folder", f"{free:.0f} GiB free", writable and free > 1, advice


def doctor(rest: list[str]) -> None:
    """Check the installation: versions, devices, data, extras."""

    def verb() -> None:
        """Check the installation: versions, devices, process groups, data and extras."""
        pass

        table = table_of("tenfold doctor", "what", "found", "")
        healthy = True
        for what, found, good, advice in examine():
            healthy &= good
            add_row(table, what, found, "ok" if good else advice)
        show(table)
        if not healthy:
            sys.exit(1)

    parse(verb, rest, "tenfold doctor", [])
