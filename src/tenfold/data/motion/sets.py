"""The motion sets that tenfold knows."""

from __future__ import annotations

from ..dataset import MIB, DataSet, Download
from .cmu_files import COMMIT, FILES, REPOSITORY

_CMU = tuple(
    Download(
        (f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}/data/cmu_mocap/{key}.txt",),
        f"{key}.txt",
        f"git:{blob}",
        64 * MIB,
    )
    for key, (blob, _) in FILES.items()
)


SETS = (
    DataSet(
        "cmu_mocap",
        ("spgsn",),
        "CMU motion capture, the 8 actions of the motion prediction benchmark",
        "real",
        "MIT (repository); recordings of mocap.cs.cmu.edu, free for all uses by its own statement",
        f"github.com/{REPOSITORY} @ {COMMIT[:7]}, data/cmu_mocap/",
        "20 MB (38 of 48 files)",
        "benchmark.npz [walking_extra.npz], or the text tree "
        "{train,test}/<action>/<action>_<i>.txt",
        "`tenfold data get cmu_mocap OUT` fetches the 48 text files; they can be read as they are",
        "recipe",
        _CMU,
    ),
    DataSet(
        "h36m",
        ("spgsn",),
        "Human3.6M as exponential maps, 7 subjects, 15 actions, 50 Hz",
        "real",
        "Human3.6M licence: academic use, registration at the site",
        "vision.imar.ro/human3.6m",
        "about 500 MB",
        "S<subject>/<action>_<1|2>.txt, 99 comma-separated numbers a frame",
        "register at vision.imar.ro/human3.6m; the exponential maps used by motion prediction "
        "papers (h3.6m.zip) unpack to this layout",
        "as is",
        bring_your_own=True,
    ),
    DataSet(
        "3dpw",
        ("spgsn",),
        "3D Poses in the Wild: 24 SMPL joints outdoors, 30 Hz",
        "real",
        "3DPW licence: non-commercial scientific research",
        "virtualhumans.mpi-inf.mpg.de/3DPW",
        "about 10 MB without images (sequenceFiles)",
        "sequenceFiles/{train,validation,test}/*.pkl",
        "accept the licence at the site and unpack sequenceFiles.zip",
        "as is",
        bring_your_own=True,
    ),
)
"""One entry a set."""
