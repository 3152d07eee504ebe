"""Panoptic qualities of anyone's pictures and trees, of segments, their parts, and parts of parts.

One checker for all that is divided into regions: it takes arrays and trees from wherever they
come; `tenfold.data.images` reads COCO panoptic, panoptic parts, ADE20K and COCOTree's files, and
`tenfold.systems.virreq.trees` those of ViRReq. Every function takes the truth first.

| function | takes | gives |
|---|---|---|
| `pq` | maps of segments | PQ, SQ, RQ of each class (Kirillov et al., 2019) |
| `part_pq` | maps of classes, instances, parts | PartPQ (de Geus et al., 2021) |
| `hpq` | trees | HPQ, by two rules: our reconstruction of ViRReq's |
| `otq` | trees | open tree quality of each picture (COCOTree) |
| `semantic_iou` | trees | IoU of each class of a level |
| `probe_quality` | masks of probes | mean IoU, recall, agreement of the probes of an object |

`Quality.losses` says how much of 1 - PQ is due to overlaps, inventions and misses.
"""

from tenfold.structures import PartMap, Segments, Tree, Unit

from .counts import Counts, Quality, Table
from .open_trees import OpenQuality, mean, otq, same
from .parts import CITYSCAPES_PARTS, PartClasses, part_pq
from .probing import ProbeQuality, probe_quality
from .segments import pq
from .trees import TreeQuality, hpq, semantic_iou

__all__ = [
    "CITYSCAPES_PARTS", "Counts", "OpenQuality", "PartClasses", "PartMap", "ProbeQuality",
    "Quality", "Segments", "Table", "Tree", "TreeQuality", "Unit", "hpq", "mean", "otq", "part_pq",
    "pq", "probe_quality", "same", "semantic_iou",
]  # fmt: skip
