"""What differs between where a run was trained and here, and what that means for its numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from search.names import Artifact, Tag
from search.provenance import (
    changed_since,
    decided_in,
    describe_environment,
    installed_packages,
    source_diff,
    source_tags,
)
from search.terminal import counted
from search.tracking.reader import read_artifact
from vaegan_core.config.trial import TrialConfig

CORE = "vaegan_core"
"""The package that computes every number."""
COMPUTING = re.compile(r"torch|torchvision|numpy|scipy|triton|nvidia-.*|intel-openmp|mkl")
"""Packages whose version decides how numbers are computed."""
NAMED = 6
"""Packages that are named; the others are counted."""


class Bits(StrEnum):
    """What a difference means for a rerun's numbers."""

    SAME = "the same"
    """Nothing that computes them differs."""
    MAY = "may differ"
    WILL = "will differ"
    """Another kind of arithmetic, or another order of it."""


@dataclass(frozen=True)
class Change:
    """One thing that differs."""

    what: str
    then: str
    now: str
    """Both "" where `what` says it all."""
    bits: Bits

    def in_words(self) -> str:
        return f"{self.what}: {self.then} then, {self.now} now" if self.then or self.now else self.what


@dataclass(frozen=True)
class Origin:
    """Where and from what a training comes; "" or empty where that is not known."""

    commit: str
    diff: str
    """How files differed from the commit."""
    packages: Mapping[str, str]
    """Versions by name."""
    python: str
    torch: str
    device: str
    facts: Mapping[str, Any]
    """What the machine decided, by key of `train`."""
    features: str
    """Fingerprint of the frame set's feature network."""


def origin_of(client: MlflowClient, run: Run) -> Origin:
    """Where a run comes from, by its own tags and artifacts, or those of the runs above it."""
    tags, packages = run.data.tags, _versions(_inherited(client, run, Artifact.ENVIRONMENT))
    return Origin(
        commit=tags.get(Tag.GIT, ""),
        diff=_inherited(client, run, Artifact.GIT_DIFF),
        packages=packages,
        python=tags.get(Tag.PYTHON, ""),
        torch=tags.get(Tag.TORCH, packages.get("torch", "")),
        device=tags.get(Tag.DEVICE, ""),
        facts=decided_in(tags),
        features=tags.get(Tag.FEATURES, ""),
    )


def origin_here(config: TrialConfig, features: str) -> Origin:
    """Where a training of the resolved `config` comes from that begins here and now."""
    environment = describe_environment(config)
    return Origin(
        commit=source_tags().get(Tag.GIT, ""),
        diff=source_diff(),
        packages=_versions(installed_packages()),
        python=environment["python"],
        torch=environment["torch"],
        device=environment["device"],
        facts=decided_in(environment),
        features=features,
    )


def _inherited(client: MlflowClient, run: Run, artifact: Artifact) -> str:
    """An artifact's text, of the run or of the nearest run above it that has one; "" where none has."""
    while True:
        if any(item.path == artifact for item in client.list_artifacts(run.info.run_id)):
            with suppress(ValueError):
                return read_artifact(client, run.info.run_id, artifact).decode()
        parent = run.data.tags.get("mlflow.parentRunId")
        if parent is None:
            return ""
        run = client.get_run(parent)


def _versions(text: str) -> dict[str, str]:
    pairs = (line.partition("==") for line in text.splitlines())
    return {name.lower(): version for name, _, version in pairs if version}


def changes(then: Origin, now: Origin) -> tuple[Change, ...]:
    """Everything that is known to differ. Something that is not known of one of them does not count."""
    return (*_code(then, now), *_packages(then, now), *_machine(then, now))


def _code(then: Origin, now: Origin) -> Iterator[Change]:
    if not then.commit or not now.commit:
        return
    own = f"{then.commit[:12]}{' with changes' if then.diff else ''}"
    here = f"{now.commit[:12]}{' with changes' if now.diff else ''}"
    if then.commit != now.commit:
        files = changed_since(then.commit, CORE)
        touched = files is None or files or _touches(then.diff, CORE) or _touches(now.diff, CORE)
        what = (
            f"code ({CORE} is the same)"
            if not touched
            else f"code (that commit is not known here, so {CORE} may differ)"
            if files is None
            else f"code ({CORE}: {len(files)} file{'s' * (len(files) != 1)} changed)"
        )
        yield Change(what, own, here, Bits.MAY if touched else Bits.SAME)
    elif then.diff != now.diff:
        touched = _part(then.diff, CORE) != _part(now.diff, CORE)
        yield Change(f"code ({CORE} {'differs' if touched else 'is the same'})", own, here, _may(touched))


def _may(differs: bool) -> Bits:
    return Bits.MAY if differs else Bits.SAME


def _part(diff: str, folder: str) -> str:
    """The part of a git diff that is about files in a folder."""
    parts = re.split(r"(?m)^(?=diff --git )", diff)
    return "".join(part for part in parts if part.startswith(f"diff --git a/{folder}/"))


def _touches(diff: str, folder: str) -> bool:
    return bool(_part(diff, folder))


def _packages(then: Origin, now: Origin) -> Iterator[Change]:
    if not then.packages:
        if then.torch and then.torch != now.torch:
            yield Change("torch", then.torch, now.torch, Bits.MAY)
        return
    differing = sorted(
        name for name in then.packages.keys() | now.packages if then.packages.get(name) != now.packages.get(name)
    )
    computing = [name for name in differing if COMPUTING.fullmatch(name)]
    for name in computing:
        yield Change(name, then.packages.get(name, "none"), now.packages.get(name, "none"), Bits.MAY)
    others = [name for name in differing if name not in computing]
    if others:
        named = ", ".join(others[:NAMED]) + (" and others" if len(others) > NAMED else "")
        count = counted(len(others), "package")
        yield Change(f"other versions of {count} without part in the numbers ({named})", "", "", Bits.SAME)


def _machine(then: Origin, now: Origin) -> Iterator[Change]:
    if then.python and then.python != now.python:
        yield Change("Python", then.python, now.python, Bits.SAME)
    if then.device and then.device != now.device:
        yield Change("device", then.device, now.device, Bits.MAY)
    for name, value in then.facts.items():
        if now.facts.get(name, value) != value:
            yield Change(f"train.{name}", str(value), str(now.facts[name]), Bits.WILL)
    if then.features and then.features != now.features:
        yield Change("feature network of the frames", then.features, now.features, Bits.WILL)


def verdict(found: tuple[Change, ...]) -> str:
    """What all differences together mean for the numbers, in one sentence."""
    will, may = ([each.what for each in found if each.bits == bits] for bits in (Bits.WILL, Bits.MAY))
    if will:
        return (
            f"The numbers cannot be the same bit for bit, because of {', '.join(will)}; compare them with fresh seeds."
        )
    if may:
        return f"The numbers may differ in their last bits, and then more and more, because of {', '.join(may)}."
    return "Nothing that computes the numbers differs: they should be the same bit for bit."


def worst(found: tuple[Change, ...]) -> Bits:
    """The gravest of what the differences mean."""
    return max((each.bits for each in found), key=list(Bits).index, default=Bits.SAME)
