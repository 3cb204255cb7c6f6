"""A sweep as a Ray job: this code and the resolved YAML go to the head, where the driver runs; its lines come back.

Nodes keep what they have installed; only our two packages travel, less than a megabyte. Whoever has the cluster's token
can read a job's environment, so nothing secret goes in there.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiohttp import ClientError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

import search
import vaegan_core
from search.journal.sweeps import STOP_MINUTES
from search.names import SUBMITTED, Artifact
from search.provenance import PROVENANCE_FILE, provenance
from search.redaction import redact

PACKAGES = (search, vaegan_core)
SWEEP_KEY = "vaegan_sweep"
"""Key of a job's metadata: the sweep's name."""
ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)
LOOK_SECONDS = 2.0
SILENT_SECONDS = 90.0
"""A connection is made anew where a job says nothing for so long; a driver says something once a minute."""
UNKNOWN = "status code 404"
"""In what the client raises for a job that its server does not know."""
OF_RAY = re.compile(
    r"Running entrypoint for job |\d{4}-\d\d-\d\d [\d:,]+\t\w+ \w+\.py:\d+ -- "
    r"|\[[-\d]+ [\d:,]+ I \d+ \d+\] \w+\.cc:\d+: "
)
"""Begins the lines that Ray adds to those of the driver."""
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.png", "*.md")


Client = JobSubmissionClient


class UnknownJob(ValueError):
    """The server does not know a job, or not any more: a new head knows none of those before."""


@dataclass(frozen=True)
class Job:
    """A job of a sweep."""

    id: str
    status: JobStatus
    message: str
    exit_code: int | None

    @classmethod
    def of(cls, details: JobDetails) -> Job:
        return cls(details.submission_id, details.status, details.message or "", details.driver_exit_code)

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    @property
    def words(self) -> str:
        """Its state: pending, running, succeeded, failed or stopped."""
        return str(self.status.value).lower()

    @property
    def code(self) -> int:
        """Exit code of its driver, once it has ended; 1 for one that had none."""
        return 0 if self.status == JobStatus.SUCCEEDED else self.exit_code or 1


def sweep_of(details: JobDetails) -> str:
    """Name of a job's sweep; "" for a job of somebody else's, which may come without any metadata."""
    return str((details.metadata or {}).get(SWEEP_KEY, "")) if details.submission_id else ""


def jobs_of(client: JobSubmissionClient, name: str) -> list[Job]:
    """Jobs of the sweep of that name, the newest first."""
    found = [each for each in client.list_jobs() if sweep_of(each) == name]
    return [Job.of(each) for each in sorted(found, key=lambda each: each.start_time or 0, reverse=True)]


def latest_job(client: JobSubmissionClient, name: str) -> Job:
    """The newest job of a sweep. Raises ValueError naming the sweeps that have one."""
    jobs = jobs_of(client, name)
    if not jobs:
        names = sorted({*map(sweep_of, client.list_jobs())} - {""})
        raise ValueError(f"no job of a sweep named {name} is known there; there are: {', '.join(names) or 'none'}")
    return jobs[0]


def submit(client: JobSubmissionClient, cluster: str, name: str, arguments: Iterable[str], yaml: str) -> str:
    """Submits the driver of a sweep; the job's id. `cluster` is the address as it was typed, which messages repeat;
    `arguments` are those of `vaegan` on the head, `yaml` is the file that `sweep` runs.

    Raises ValueError while a job of that sweep runs.
    """
    before = jobs_of(client, name)
    if before and not before[0].has_ended:
        raise ValueError(
            f"the job {before[0].id} runs {name} already; follow it (vaegan attach {name} --cluster {cluster}) or stop "
            f"it first (vaegan stop {name} --cluster {cluster})"
        )
    taken = {each.submission_id for each in client.list_jobs()}
    ids = (f"vaegan-{name}{'' if number == 1 else f'-{number}'}" for number in itertools.count(1))
    id = next(each for each in ids if each not in taken)  # the second of demo may be the first of demo-2
    with packages(yaml) as modules:
        client.submit_job(
            entrypoint=f"python -m search.cluster.job {shlex.quote(json.dumps([id, redact(cluster), *arguments]))}",
            submission_id=id,
            metadata={SWEEP_KEY: name},
            runtime_env={
                "py_modules": modules,
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(round(60 * STOP_MINUTES + 60))},
            },
        )
    return id


@contextmanager
def packages(yaml: str) -> Iterator[list[str]]:
    """Directories of the packages that a job gets, copied without caches."""
    with TemporaryDirectory(prefix="vaegan-") as directory:
        made = []
        for package in PACKAGES:
            assert package.__file__ is not None
            target = Path(directory) / package.__name__
            shutil.copytree(Path(package.__file__).parent, target, ignore=LEFT_OUT)
            made.append(str(target))
        submitted = Path(directory) / SUBMITTED
        submitted.mkdir()
        (submitted / "__init__.py").write_text('"""What came with a job."""\n')
        (submitted / Artifact.SWEEP).write_text(yaml)
        (submitted / PROVENANCE_FILE).write_text(json.dumps(provenance()))
        yield [*made, str(submitted)]


def follow(client: JobSubmissionClient, id: str, show: Callable[[str], None]) -> Job:
    """Shows what a job says, by lines, until it has ended, through interruptions of the connection, however long.

    Raises UnknownJob where the server does not know it any more.
    """
    shown, rest = 0, ""

    async def tail() -> None:
        nonlocal shown, rest
        before, clock = 0, asyncio.get_running_loop().time
        async with asyncio.timeout(SILENT_SECONDS) as limit:
            async for text in client.tail_job_logs(id):
                limit.reschedule(clock() + SILENT_SECONDS)
                before += len(text)
                if before > shown:
                    *lines, rest = (rest + text[len(text) - (before - shown) :]).split("\n")
                    shown = before
                    for line in lines:
                        if not OF_RAY.match(line):
                            show(line)

    was_lost = had_ended = False
    while True:
        try:
            asyncio.run(tail())
            is_whole = True
        except (RuntimeError, OSError, ClientError):
            is_whole = False
        try:
            job = Job.of(client.get_job_info(id))
        except (RuntimeError, OSError) as error:
            if UNKNOWN in str(error):
                raise UnknownJob(f"the job {id} is not known there") from None
            if not was_lost:
                show(f"The job server does not answer. The job {id} is followed again once it does; Ctrl-C ends that.")
            was_lost = True
        else:
            was_lost = False
            if job.has_ended and (is_whole or had_ended):
                return job
            had_ended = job.has_ended  # once more, for its last lines
        time.sleep(LOOK_SECONDS)


def last_words(client: JobSubmissionClient, id: str, lines: int) -> list[str]:
    """The last lines that a job has said."""
    text: Any = client.get_job_logs(id)
    return [line for line in str(text).splitlines() if line.strip() and not OF_RAY.match(line)][-lines:]
