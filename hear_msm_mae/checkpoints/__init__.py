"""Weights files: this package's own format, other PyTorch checkpoints, the Hugging Face Hub."""
