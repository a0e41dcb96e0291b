"""Weights as files, folders and Hub repositories: of this package and of others."""

from .hub import push_to_hub, save_folder
from .native import Checkpoint, state_tensors

__all__ = ["Checkpoint", "push_to_hub", "save_folder", "state_tensors"]
