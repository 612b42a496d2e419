"""A cluster for the tests of Ray."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="package")
def cluster() -> Iterator[Any]:
    """A local Ray cluster of two nodes with one CPU each."""
    ray: Any = pytest.importorskip("ray", reason="needs ray, of the extra scale")
    from ray.cluster_utils import Cluster

    memory = 80 << 20
    # A lost node is noticed after three seconds, not fifteen.
    quick = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}
    head = {"num_cpus": 1, "object_store_memory": memory, "_system_config": quick}
    built = Cluster(initialize_head=True, head_node_args=head)
    built.add_node(num_cpus=1, object_store_memory=memory)
    yield built
    ray.shutdown()
    built.shutdown()
