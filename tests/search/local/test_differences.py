"""What differs between then and now, and what that means for the numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from search.local import differences
from search.local.differences import Bits, Origin, changes, origin_of, verdict, worst
from search.names import Artifact, Kind, Tag
from search.tracking.runs import NewRun, create_run

FACTS = {"device": "cpu", "threads": 1, "precision": "float32", "channels_last": True, "compile": False}
CORE_DIFF = "diff --git a/vaegan_core/config/trial.py b/vaegan_core/config/trial.py\n-a\n+b\n"
OTHER_DIFF = "diff --git a/README.md b/README.md\n-a\n+b\n"
THEN = Origin(
    commit="a" * 40,
    diff="",
    packages={"torch": "2.11.0", "numpy": "2.4.6", "rich": "14.0"},
    python="3.11.2",
    torch="2.11.0",
    device="a CPU",
    facts=FACTS,
    features="f" * 16,
)


def test_the_same_place_gives_the_same_bits() -> None:
    assert changes(THEN, THEN) == ()
    assert worst(()) == Bits.SAME
    assert verdict(()) == "Nothing that computes the numbers differs: they should be the same bit for bit."


@pytest.mark.parametrize(
    ("now", "what", "bits"),
    [
        ({"packages": THEN.packages | {"torch": "2.15.0"}}, "torch: 2.11.0 then, 2.15.0 now", Bits.MAY),
        ({"packages": THEN.packages | {"nvidia-cudnn-cu13": "9"}}, "nvidia-cudnn-cu13: none then, 9 now", Bits.MAY),
        (
            {"packages": THEN.packages | {"rich": "15"}},
            r"other versions of 1 package without part in the numbers \(rich\)$",
            Bits.SAME,
        ),
        ({"python": "3.12.1"}, "Python: 3.11.2 then, 3.12.1 now", Bits.SAME),
        ({"device": "another CPU"}, "device: a CPU then, another CPU now", Bits.MAY),
        ({"facts": FACTS | {"threads": 8}}, "train.threads: 1 then, 8 now", Bits.WILL),
        ({"facts": FACTS | {"precision": "bfloat16"}}, "train.precision: float32 then, bfloat16 now", Bits.WILL),
        ({"features": "e" * 16}, "feature network of the frames: f{16} then, e{16} now", Bits.WILL),
        ({"diff": CORE_DIFF}, r"code \(vaegan_core differs\): a{12} then, a{12} with changes now", Bits.MAY),
        ({"diff": OTHER_DIFF}, r"code \(vaegan_core is the same\): a{12} then, a{12} with changes now", Bits.SAME),
    ],
)
def test_what_differs_is_named_with_what_it_means(now: dict[str, Any], what: str, bits: Bits) -> None:
    [change] = changes(THEN, replace(THEN, **now))
    assert re.match(what, change.in_words())
    assert change.bits == bits
    assert worst((change,)) == bits
    assert (change.what in verdict((change,))) == (bits != Bits.SAME)


@pytest.mark.parametrize(
    ("files", "diff", "words", "bits"),
    [
        ([], "", "vaegan_core is the same", Bits.SAME),
        ([], CORE_DIFF, "vaegan_core: 0 files changed", Bits.MAY),
        (["vaegan_core/config/trial.py"], "", "vaegan_core: 1 file changed", Bits.MAY),
        (None, "", "that commit is not known here, so vaegan_core may differ", Bits.MAY),
    ],
)
def test_another_commit_matters_where_the_core_differs(
    monkeypatch: pytest.MonkeyPatch, files: list[str] | None, diff: str, words: str, bits: Bits
) -> None:
    monkeypatch.setattr(differences, "changed_since", lambda commit, _: files if commit == "a" * 40 else None)
    [change] = changes(replace(THEN, diff=diff), replace(THEN, commit="b" * 40))
    assert (words in change.what, change.bits) == (True, bits)


def test_what_one_of_them_does_not_know_does_not_count() -> None:
    unknown = Origin(commit="", diff="", packages={}, python="", torch="", device="", facts={}, features="")
    assert changes(unknown, THEN) == ()
    [change] = changes(replace(unknown, torch="2.0.0"), THEN)
    assert change.in_words() == "torch: 2.0.0 then, 2.11.0 now"


def test_a_trial_has_the_packages_and_the_diff_of_the_sweep_above_it(tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.create_experiment("e", artifact_location=(tmp_path / "artifacts").as_uri())
    sweep = create_run(client, experiment, NewRun(Kind.SWEEP, "s"))
    client.log_text(sweep, "torch==2.11.0\nNumPy==2.4.6\n", Artifact.ENVIRONMENT)
    client.log_text(sweep, CORE_DIFF, Artifact.GIT_DIFF)
    place = {"host": "h", "device": "a CPU", "decided": '{"threads": 1}', "python": "3.11.2"}
    trial = create_run(client, experiment, NewRun(Kind.TRIAL, "t", place, sweep, more={Tag.FEATURES: "f"}))
    replicate = create_run(client, experiment, NewRun(Kind.REPLICATE, "r", place, trial))
    found = origin_of(client, client.get_run(replicate))
    assert found.packages == {"torch": "2.11.0", "numpy": "2.4.6"}
    assert (found.diff, found.torch, found.python) == (CORE_DIFF, "2.11.0", "3.11.2")
    assert found.facts == {"threads": 1}
    assert origin_of(client, client.get_run(trial)).features == "f"
