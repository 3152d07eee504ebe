"""DTS (arXiv 2303.09083): domain-adaptive segmentation by two teacher-student groups."""
