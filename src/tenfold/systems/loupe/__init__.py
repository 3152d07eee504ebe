"""LOUPE: fine-grained image-text pre-training by Shapley interactions (arXiv 2208.02515)."""
