from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from sweeps import evaluation

from search.journal.records import Cause, FileKind, SavedRecord
from search.running.messages import (
    Assignment,
    Ended,
    Evaluated,
    Report,
    Started,
    discard_payload,
    from_result,
    to_result,
)

ASSIGNMENT = Assignment(
    trial=3,
    attempt=2,
    alone=True,
    apart=False,
    config="frames: '1e3'\n",
    storage="s3://bucket",
    prefix="sweeps/x",
    folder="trials/00003/attempt-2",
    scratch="x",
    state=asdict(SavedRecord(3, 1, 40, FileKind.STATE, "trials/00003/attempt-1/step-40", "hash")),
    gpu=0.5,
    seconds=60.0,
)


def test_an_assignment_goes_through_tunes_configuration_unchanged() -> None:
    assert Assignment.of(ASSIGNMENT.to_config()) == ASSIGNMENT


def test_an_assignment_without_one_of_its_keys_is_an_error_and_has_no_default() -> None:
    for name in ASSIGNMENT.to_config():
        rest = {key: value for key, value in ASSIGNMENT.to_config().items() if key != name}
        with pytest.raises(KeyError, match=name):
            Assignment.of(rest)


@pytest.mark.parametrize(
    "report",
    [
        Started("threads: 1", {"host": "a", "node": "n"}, from_step=40),
        Evaluated(evaluation(120, mse=0.25)),
        Evaluated(evaluation(120), (SavedRecord(3, 2, 120, FileKind.MODEL, "key", "hash"),)),
        Ended(Cause.OUT_OF_MEMORY, "Traceback\nOutOfMemoryError: no memory"),
    ],
)
def test_a_report_comes_back_as_it_was_sent(report: Report) -> None:
    result = to_result(report) | {"training_iteration": 1, "done": False}
    assert from_result(result) == report


def test_a_result_of_tunes_own_is_no_report() -> None:
    assert from_result({"done": True, "training_iteration": 3}) is None


def test_what_was_read_leaves_no_evaluation_in_tunes_state() -> None:
    result = to_result(Evaluated(evaluation(120))) | {"training_iteration": 1}
    discard_payload(result)
    assert json.dumps(result) == '{"training_iteration": 1}'
