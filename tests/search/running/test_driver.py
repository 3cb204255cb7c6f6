"""What the driver refuses before a trial runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from search.running.driver import check_files_are_reached

HEAD = {"NodeID": "head", "Alive": True, "Resources": {"memory": 1e9}}
HEAD_THAT_WORKS = HEAD | {"Resources": {"CPU": 8.0}}
W1 = {"NodeID": "w1", "Alive": True, "Resources": {"CPU": 8.0}}
W2 = W1 | {"NodeID": "w2"}
TWO, THREE = "the cluster has 2 hosts, which must", "the cluster has 3 hosts, which must"


@pytest.mark.parametrize(
    ("nodes", "refused"),
    [
        ([HEAD_THAT_WORKS], ""),
        ([HEAD_THAT_WORKS, W1 | {"Alive": False}], ""),
        ([HEAD, W1], TWO),
        ([HEAD_THAT_WORKS, W1], TWO),
        ([HEAD, W1, W2], THREE),
        ([HEAD], "the cluster waits for its hosts, which must"),
    ],
    ids=["here", "here, another is dead", "one elsewhere", "here and elsewhere", "two elsewhere", "none yet"],
)
def test_trials_that_would_run_elsewhere_need_a_storage(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, Any]], refused: str
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "head"))
    check_files_are_reached(SimpleNamespace(is_shared=True))
    if refused:
        with pytest.raises(ValueError, match=rf"^{refused} all reach the sweep's files: name a bucket .*--storage"):
            check_files_are_reached(SimpleNamespace(is_shared=False))
    else:
        check_files_are_reached(SimpleNamespace(is_shared=False))
