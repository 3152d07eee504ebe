"""USAGE: seed areas for weakly supervised segmentation (arXiv 2303.07806, ICCV 2023)."""
