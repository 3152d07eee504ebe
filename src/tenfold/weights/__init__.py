"""Weights files: safetensors in and out, key maps from official checkpoints."""
