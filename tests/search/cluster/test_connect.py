"""Ray that does not start is one sentence, whatever it raises; nodes must share the directory of the sweep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from sweeps import make_sweep

from search.cluster import connect, nodes

PATH = "AF_UNIX path length cannot exceed 107 bytes: /tmp/x/ray/session/sockets/plasma_store"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Exception("The current node timed out during startup. This\nmay be"), r"timed out during startup.*try again$"),
        (OSError(f"validate_socket_filename failed: {PATH}"), "set TMPDIR to a shorter one"),
        (ConnectionError("nobody listens"), "cannot be started on this machine: nobody listens$"),
        (TimeoutError(), "TimeoutError$"),
    ],
)
def test_ray_that_does_not_start_is_one_sentence(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(ValueError, match=said) as raised:
        connect.start_ray(make_sweep(), None)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("sees", [True, False])
def test_a_node_that_does_not_see_the_sweeps_directory_is_named(
    sees: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remote(**_: object) -> Callable[..., SimpleNamespace]:
        def ask(path: str) -> str:
            return nodes._read(path if sees else f"{path} elsewhere")

        return lambda _: SimpleNamespace(options=lambda **_: SimpleNamespace(remote=ask))

    node = {"Alive": True, "Resources": {"CPU": 4.0}, "NodeManagerHostname": "far", "NodeID": "0" * 56}
    dead = node | {"Alive": False, "NodeManagerHostname": "dead"}
    for name, replaced in {"nodes": lambda: [node, dead], "remote": remote, "get": lambda answer: answer}.items():
        monkeypatch.setattr(ray, name, replaced)
    if sees:
        nodes.check_shared(tmp_path)
    else:
        with pytest.raises(ValueError, match=r"not there on far$"):
            nodes.check_shared(tmp_path)
    assert list(tmp_path.iterdir()) == []
