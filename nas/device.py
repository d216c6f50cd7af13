"""Where tensors are."""

import torch


def resolve_device(device: str) -> torch.device:
    """The device of a config's `device`; `auto` is CUDA if it is there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
