"""Sweeps on a Ray cluster, from a machine that is not in it: submitted as jobs, followed, looked at and stopped."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from search.commands.options import Cluster, Name, Storage
from search.redaction import has_secret, redact
from search.terminal import counted, screen

if TYPE_CHECKING:
    from search.cluster.jobs import Client
    from search.config.sweep import Sweep
    from search.config.sweep_config import TrackingConfig

LAST_LINES = 5
LOOPBACK = ("localhost", "127.0.0.1", "::1")
DOCTOR = "doctor"
"""What stands for a sweep's name in the job that looks at a cluster."""


def submit_sweep(sweep: Sweep, cluster: str, storage: str) -> None:
    """Brings the frames to the storage, submits the sweep's driver as a job, and follows it."""
    from search.cluster.jobs import submit
    from search.cluster.server import open_server
    from search.running.sweep_frames import open_frames
    from search.storage.frames import local_frames
    from search.storage.stored_sweep import check_name_is_free_in, store_frames

    name = sweep.config.name
    client = open_server(cluster)
    _check_storage(storage)
    check_name_is_free_in(storage, name, cluster)
    frames = open_frames(sweep, screen)
    store_frames(storage, frames.frame_set, screen)
    base = sweep.config.base | {"frames": str(local_frames(frames.frame_set.fingerprint))}
    changes = {"base": base, "storage": storage, "tracking": _tracking_of_job(sweep)}
    yaml = sweep.config.model_copy(update=changes).to_yaml()
    id = submit(client, cluster, name, ["sweep", name, "--cluster", "auto", "--storage", storage], yaml)
    _follow(client, id, name, cluster, storage)


def _tracking_of_job(sweep: Sweep) -> TrackingConfig:
    """Where the job's runs go: to the server that this machine's environment names, unless only it can reach that."""
    given, tracking = os.environ.get("MLFLOW_TRACKING_URI", ""), sweep.config.tracking
    if tracking.uri or not given.startswith("http"):
        return tracking
    if not has_secret(given) and urlsplit(given).hostname not in LOOPBACK:
        return tracking.model_copy(update={"uri": given})
    screen.say(
        f"MLFLOW_TRACKING_URI of this machine, {redact(given)}, does not travel to the cluster: what it sets there "
        "counts, or name a server in tracking.uri"
    )
    return tracking


def resume_sweep(name: str, cluster: str, storage: str, more: list[str]) -> None:
    """Submits a driver that goes on with a sweep of the storage, and follows it."""
    from search.cluster.jobs import submit
    from search.cluster.server import open_server

    client = open_server(cluster)
    _check_storage(storage)
    id = submit(client, cluster, name, ["resume", name, "--cluster", "auto", "--storage", storage, *more], "")
    _follow(client, id, name, cluster, storage)


def _check_storage(storage: str) -> None:
    if not storage:
        raise ValueError(
            "a sweep on a cluster needs a storage that all of its machines reach: --storage s3://… (or gs://…, or a "
            "directory that is mounted on each of them), VAEGAN_STORAGE, or storage in the YAML"
        )


def attach(
    name: Name, cluster: Annotated[str, typer.Option(metavar="URL", help="The cluster's job server: http://HEAD:8265.")]
) -> None:
    """Follow a sweep that runs on a cluster. Ctrl-C leaves it running."""
    from search.cluster.jobs import latest_job
    from search.cluster.server import open_server

    client = open_server(cluster)
    _follow(client, latest_job(client, name).id, name, cluster)


def _follow(client: Client, id: str, name: str, cluster: str, storage: str = "s3://BUCKET/FOLDER") -> None:
    """Shows what a job says; ends with its exit code. `storage` is that of its sweep, as far as it is known."""
    from search.cluster.jobs import UnknownJob, follow

    screen.say(f"The job {id} runs {name} at {cluster}; Ctrl-C leaves it running.")
    try:
        job = follow(client, id, screen.say)
    except KeyboardInterrupt:
        screen.say(
            f"\n{name} goes on as the job {id}. Follow it with: vaegan attach {name} --cluster {cluster}\n"
            f"Stop it with: vaegan stop {name} --cluster {cluster}"
        )
        raise typer.Exit(130) from None
    except UnknownJob:
        again = "vaegan doctor" if name == DOCTOR else f"vaegan resume {name} --storage {shlex.quote(storage)}"
        raise ValueError(
            f"{cluster} does not know the job {id} any more; where its head was lost, continue on the new one with: "
            f"{again} --cluster {cluster}"
        ) from None
    if job.exit_code is None and job.message:
        screen.say(f"The job {id} ended as {job.words}: {job.message.splitlines()[0]}")
    raise typer.Exit(job.code)


def show_status(name: str, cluster: str, *, as_json: bool) -> None:
    """Says what the newest job of a sweep said last."""
    from search.cluster.jobs import last_words, latest_job
    from search.cluster.server import open_server

    client = open_server(cluster)
    job = latest_job(client, name)
    words = last_words(client, job.id, LAST_LINES)
    if as_json:
        print(json.dumps({"name": name, "job": job.id, "status": job.words, "words": words}, indent=2))
        return
    screen.say(f"{name}: job {job.id}, {job.words}. Its last words:")
    for line in words:
        screen.say(f"  {line}")


def stop_job(name: str, cluster: str) -> None:
    """Has the newest job of a sweep stop cleanly."""
    from search.cluster.jobs import latest_job
    from search.cluster.server import open_server
    from search.journal.sweeps import STOP_MINUTES

    client = open_server(cluster)
    job = latest_job(client, name)
    if job.has_ended:
        screen.say(f"{name} is not running: its job {job.id} has {job.words}.")
        return
    client.stop_job(job.id)
    screen.say(f"{name} stops when its running trials reach their next evaluation, within {STOP_MINUTES:g} minutes.")


def _submit_doctor(cluster: str, storage: str) -> None:
    from search.cluster.jobs import submit
    from search.cluster.server import open_server

    client = open_server(cluster)
    id = submit(client, cluster, DOCTOR, ["doctor", *(["--storage", storage] if storage else [])], "")
    _follow(client, id, DOCTOR, cluster)


Frames = Annotated[Path | None, typer.Option(metavar="DIR", help="Frames that every node must have room for.")]


def doctor(cluster: Cluster = "auto", storage: Storage = None, frames: Frames = None) -> None:
    """Look at every node of a cluster: what would make a sweep fail there, each in a line with its remedy."""
    from search.cluster.server import check_address, is_job_server
    from search.paths import storage_uri

    check_address(cluster)
    uri = storage_uri(storage)
    if cluster is not None and is_job_server(cluster):
        if frames is not None:
            raise ValueError(
                f"--frames is for a machine of the cluster, which has them, and not for {cluster}; leave it out: a "
                "sweep looks by itself"
            )
        _submit_doctor(cluster, uri)
        return
    from search.running.ready_nodes import examined

    nodes = examined(uri, frames)
    for node in nodes:
        for line in node.in_words():
            screen.say(line)
    unfit = sum(bool(node.problems) for node in nodes)
    screen.say(f"{counted(len(nodes) - unfit, 'node')} of {len(nodes)} can run trials.")
    raise typer.Exit(2 if unfit else 0)
