"""Ray that does not start is one sentence, whatever it raises."""

from __future__ import annotations

import pytest
import ray

from search.cluster import connect

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
        connect.connect(None)
    assert "\n" not in str(raised.value)
