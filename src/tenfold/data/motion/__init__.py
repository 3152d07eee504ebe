"""Motion: BVH and the benchmarks of skeleton motion."""
