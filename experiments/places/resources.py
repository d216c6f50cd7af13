"""What one trial reserves, and how many fit on a node."""

from typing import Annotated

from pydantic import AfterValidator, Field

from nas.config import ConfigRecord


def _check_share(gpus: float) -> float:
    if 0 < gpus < 0.001:
        raise ValueError("must be 0, or at least 0.001")
    return gpus


class Resources(ConfigRecord):
    """What one trial occupies, and how many run at a time."""

    cpus_per_trial: Annotated[int, Field(ge=1)] = 1
    """Cores reserved for a trial; at least its `num_threads`."""

    gpus_per_trial: Annotated[float, Field(ge=0, le=1024), AfterValidator(_check_share)] = 0.0
    """GPUs reserved for a trial; a fraction lets several trials share one."""

    node_resource: Annotated[str, Field(min_length=1)] | None = None
    """On a cluster of unequal nodes, a resource that only those of the right kind have.

    `accelerator_type:A100`, which Ray gives the nodes with such GPUs; or one of your own, of
    `ray start --resources`. A lookup table holds for one kind. On one machine it is not heeded.
    """

    max_concurrent_trials: Annotated[int, Field(ge=1)] | None = None
    """Most trials at a time; None for as many as the resources allow."""

    def bundle(self, *, on_cluster: bool) -> dict[str, float]:
        """What a trial reserves, in Ray's words."""
        bundle = {"CPU": float(self.cpus_per_trial), "GPU": self.gpus_per_trial}
        if self.node_resource and on_cluster:
            bundle[self.node_resource] = 0.001
        return {name: amount for name, amount in bundle.items() if amount}


def num_bundles(bundle: dict[str, float], has: dict[str, float]) -> int:
    """How many trials fit on a node at a time; none has parts of two GPUs.

    Args:
        bundle: what one reserves, of the resources that the node has.
    """
    fits = []
    for name, amount in bundle.items():
        if name == "GPU" and amount < 1:
            fits.append(int(has.get(name, 0)) * int(1 / amount + 1e-9))
        else:
            fits.append(int(has.get(name, 0) / amount + 1e-9))
    return min(fits)
