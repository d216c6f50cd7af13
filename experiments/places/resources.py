"""The resources of a trial, and how many trials fit on a node."""

from typing import Annotated

from pydantic import AfterValidator, Field

from nas.config import ConfigRecord


def _check_share(gpus: float) -> float:
    if 0 < gpus < 0.001:
        raise ValueError("must be 0, or at least 0.001")
    return gpus


class Resources(ConfigRecord):
    """The resources of a trial, and how many trials run at a time."""

    cpus_per_trial: Annotated[int, Field(ge=1)] = 1
    """Cores reserved per trial; at least its `num_threads`.

    The others decode image files, unless `num_data_workers` is set.
    """

    gpus_per_trial: Annotated[float, Field(ge=0, le=1024), AfterValidator(_check_share)] = 0.0
    """GPUs reserved per trial; with a fraction several trials share one."""

    node_resource: Annotated[str, Field(min_length=1)] | None = None
    """On a cluster with different nodes: a resource that only nodes of the right kind have.

    For instance `accelerator_type:A100`, which Ray sets on nodes with such GPUs, or a resource of your own
    from `ray start --resources`. A lookup table holds for one kind of node. Not used on one machine.
    """

    max_concurrent_trials: Annotated[int, Field(ge=1)] | None = None
    """Largest number of trials at a time; None for as many as the resources allow."""

    def bundle(self, *, on_cluster: bool) -> dict[str, float]:
        """What a trial reserves, as Ray names it."""
        bundle = {"CPU": float(self.cpus_per_trial), "GPU": self.gpus_per_trial}
        if self.node_resource and on_cluster:
            bundle[self.node_resource] = 0.001
        return {name: amount for name, amount in bundle.items() if amount}


def num_bundles(bundle: dict[str, float], has: dict[str, float]) -> int:
    """Number of trials that fit on a node at a time; no trial gets parts of two GPUs.

    Args:
        bundle: what a trial reserves.
        has: the resources of the node.
    """
    fits = []
    for name, amount in bundle.items():
        if name == "GPU" and amount < 1:
            fits.append(int(has.get(name, 0)) * int(1 / amount + 1e-9))
        else:
            fits.append(int(has.get(name, 0) / amount + 1e-9))
    return min(fits)
