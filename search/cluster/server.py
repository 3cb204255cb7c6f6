"""A Ray cluster's job server, reached over HTTP from a machine that is not in the cluster."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

ANSWER_SECONDS = 30.0
SUBMIT_SECONDS = 120.0
"""The same for what changes something there, such as a job that is submitted."""
AUTH_MODE = "RAY_AUTH_MODE"
TOKEN_FILE = "~/.ray/auth_token"


class Client(JobSubmissionClient):  # type: ignore[misc]
    """Ray's own, which would wait for answers without end. Raises ConnectionError for one that does not come, and
    ValueError where this machine is not let in."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        limit = {"timeout": ANSWER_SECONDS if method == "GET" else SUBMIT_SECONDS}
        try:
            answer: requests.Response = super()._do_request(method, endpoint, **(limit | options))
        except requests.RequestException:
            told = f"the job server at {self._address} does not answer; is the head alive, and the tunnel to it open?"
            raise ConnectionError(errno.ETIMEDOUT, told) from None
        except AuthenticationError:
            raise ValueError(_without_token(self._address, "this machine has another token")) from None
        return answer


def is_job_server(address: str | None) -> bool:
    """Whether an address is that of a job server, to which a sweep is submitted."""
    return address is not None and urlsplit(address).scheme in ("http", "https")


def check_address(address: str | None) -> None:
    """Raises ValueError for what cannot be connected to, with what can."""
    if address is None or address == "auto" or is_job_server(address):
        return
    host = urlsplit(address if "://" in address else f"//{address}").hostname or "HEAD"
    raise ValueError(
        f"--cluster must be http://HEAD:8265, where the sweep runs as a job, or auto on a machine of the cluster, but "
        f"got {address}; use --cluster http://{host}:8265 (the head's port 8265, or a tunnel to it)"
    )


def open_server(address: str) -> Client:
    """A client of the job server at `address`. Raises ValueError, in one line, when it cannot be used."""
    address = address.rstrip("/")
    _use_token()
    version = _version(address)
    if version != ray.__version__:
        raise ValueError(
            f"the cluster at {address} runs Ray {version}, but this machine has {ray.__version__}; install the same "
            "version on both (constraints.txt has ours)"
        )
    for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)
    return Client(address)


def _use_token() -> None:
    """Has Ray send the cluster's token, if this machine has one."""
    has_token = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if has_token or Path(TOKEN_FILE).expanduser().is_file():
        os.environ.setdefault(AUTH_MODE, "token")


def _version(address: str) -> str:
    """Ray's version there."""
    from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled

    try:
        headers: dict[str, Any] = get_auth_headers_if_auth_enabled({})
    except Exception:  # of a private module of Ray's
        raise ValueError(_without_token(address, "this machine has no token")) from None
    try:
        answer = requests.get(f"{address}/api/version", headers=headers, timeout=ANSWER_SECONDS)
    except requests.RequestException:
        raise ValueError(
            f"no job server of Ray answers at {address}; it listens on the head's port 8265, on loopback unless told "
            "otherwise: open a tunnel (ssh -L 8265:127.0.0.1:8265 HEAD) and use --cluster http://127.0.0.1:8265"
        ) from None
    if answer.status_code in (401, 403):
        raise ValueError(
            _without_token(address, "this machine has another token" if headers else "it asks for a token")
        )
    try:
        return str(answer.json()["ray_version"])
    except (ValueError, KeyError):
        raise ValueError(f"what answers at {address} is not Ray's job server; name the head's port 8265") from None


def _without_token(address: str, why: str) -> str:
    return (
        f"the cluster at {address} does not let this machine in: {why}; put the head's {TOKEN_FILE} here at the same "
        "path (chmod 600), or set RAY_AUTH_TOKEN"
    )
