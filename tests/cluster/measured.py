"""What the cluster's tests have nodes do."""

import time

import ray


def node_address() -> str:
    return ray.util.get_node_ip_address()


def occupy(seconds: float) -> float:
    """Takes its time and says when it was over."""
    time.sleep(seconds)
    return time.time()
