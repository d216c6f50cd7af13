"""Where tensors are."""

import torch

from nas.errors import UserError


def resolve_device(device: str) -> torch.device:
    """The device of a config's `device`; `auto` is CUDA if it is there.

    GPUs count from 0 among those that `CUDA_VISIBLE_DEVICES` shows, `cuda` being the first of them.

    Raises:
        UserError: there is no such device here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UserError(f"device: '{device}'; use auto, cpu, cuda or cuda:N") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device: '{device}'; {torch.cuda.device_count()} GPUs are visible here; use auto or cpu, "
            "or a machine that has it"
        )
    return found
