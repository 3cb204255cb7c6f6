"""What is refused before the nodes of a cluster are looked at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray
from sweeps import make_sweep

from search.running.ready_nodes import leave_out_unfit

HEAD = {"NodeID": "head", "Alive": True, "Resources": {"memory": 1e9}}
W1 = {"NodeID": "w1", "Alive": True, "Resources": {"CPU": 8.0}}


@pytest.mark.parametrize("nodes", [[HEAD | {"Resources": {"CPU": 8.0}}, W1], [HEAD, W1], [HEAD]])
def test_a_store_of_mlflow_that_is_a_file_is_for_one_machine(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "head"))
    sweep: Any = make_sweep(tracking={"uri": "sqlite:///runs/mlflow.db", "experiment": "vaegan"})
    nothing: Any = SimpleNamespace()
    with pytest.raises(ValueError, match=r"mlflow\.db is a file on this machine, .* start a server"):
        leave_out_unfit(nothing, sweep, nothing, nothing)
