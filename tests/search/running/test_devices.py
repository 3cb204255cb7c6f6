"""What happens when GPUs fail, go away or come, without any: the errors and devices are made up."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from ray import tune
from sweeps import make_journal, make_sweep, trial_data
from trials import tiny
from tuning import tuning

from search.journal.journal import Journal
from search.journal.records import Cause
from search.provenance import DECIDED
from search.running import trial as worker
from search.running.device_errors import Device, bad_devices, cause_of, is_of_device
from search.running.devices import check_devices, restore_wishes
from search.running.messages import Assignment, Ended, Report, Started, from_result
from search.running.system_metrics import SystemMetrics
from search.terminal import Screen
from vaegan_core.training.machine import wishing

MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0)"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    RuntimeError("cudaErrorMemoryAllocation"),
    RuntimeError("HIP out of memory. Tried to allocate 1 GiB"),
]
DEVICE = [
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("CUDA error: unspecified launch failure"),
    RuntimeError("CUDA driver error: invalid device context"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("NCCL error: unhandled cuda error"),
    torch.AcceleratorError("CUDA error: misaligned address"),
]
OTHER = [
    OSError(28, "No space left on device"),
    ValueError("device must be auto, cpu or cuda"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
    ValueError("train.device is cuda, but torch finds no CUDA device here; set it to cpu or auto"),
]


def wrapped(error: Exception) -> Exception:
    try:
        raise RuntimeError("backend compiler failed") from error
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "cause"),
    [(e, Cause.OUT_OF_MEMORY) for e in MEMORY]
    + [(e, Cause.DEVICE) for e in DEVICE]
    + [(e, Cause.CRASHED) for e in OTHER]
    + [(wrapped(MEMORY[0]), Cause.OUT_OF_MEMORY), (wrapped(DEVICE[0]), Cause.DEVICE)],
    ids=str,
)
def test_errors_are_told_apart(error: Exception, cause: Cause) -> None:
    assert cause_of(error) == cause
    assert is_of_device(error) == (cause != Cause.CRASHED)


class Ends(BaseException):
    """In place of the end of the process."""


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """What `run_trial` reports here, without Ray."""
    found: list[Report] = []

    def report(result: dict[str, Any]) -> None:
        said = from_result(result)
        assert said
        found.append(said)

    def end() -> None:
        raise Ends

    monkeypatch.setattr(tune, "report", report)
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: ["1"])
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "n"))
    monkeypatch.setattr(worker, "end_process", end)
    return found


def assignment(directory: Path, **changes: Any) -> dict[str, Any]:
    config = wishing(tiny(), {"threads": 1}).to_yaml()
    given = Assignment(0, 1, False, False, config, str(directory), "", "a", str(directory), None, 0.25, 60.0)
    return given.to_config() | changes


def run(directory: Path, **changes: Any) -> None:
    worker.run_trial(assignment(directory, **changes), frame_set=None, features=None, threads=1)


@pytest.mark.parametrize("error", [MEMORY[0], MEMORY[4], DEVICE[0], OTHER[0]], ids=str)
def test_after_an_error_of_a_device_the_process_ends_once_it_is_reported(
    monkeypatch: pytest.MonkeyPatch, reports: list[Report], tmp_path: Path, error: Exception
) -> None:
    """Ray gives a process that lives every further trial, and the error stays."""

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(worker, "Trainer", lambda *_: None)
    monkeypatch.setattr(worker, "train", fail)
    if is_of_device(error):
        with pytest.raises(Ends):
            run(tmp_path)
    else:
        run(tmp_path)
    ended = reports[-1]
    assert isinstance(ended, Ended)
    assert ended.cause == cause_of(error)


def test_a_worker_says_what_it_decided_and_keeps_the_wish(
    monkeypatch: pytest.MonkeyPatch, reports: list[Report], tmp_path: Path
) -> None:
    monkeypatch.setattr(worker, "Trainer", lambda *_: None)
    monkeypatch.setattr(worker, "train", lambda *_: None)
    run(tmp_path, alone=True)
    (started,) = reports
    assert isinstance(started, Started)
    assert started.config == assignment(tmp_path)["config"]
    facts = json.loads(started.environment[DECIDED])
    assert (facts["device"], facts["threads"]) == ("cpu", 1)
    assert (started.environment["gpus"], started.environment["gpu"]) == ("1", "1")


def test_trials_on_the_cpu_do_not_touch_a_gpu(
    monkeypatch: pytest.MonkeyPatch, reports: list[Report], tmp_path: Path
) -> None:
    """A question to CUDA takes 300 MB of the first GPU, in every process."""

    def touched(*_: Any) -> None:
        raise AssertionError("CUDA was asked")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("reset_peak_memory_stats", "max_memory_allocated", "empty_cache", "get_device_name", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, touched)
    monkeypatch.setattr(worker, "Trainer", lambda *_: None)
    monkeypatch.setattr(worker, "train", lambda *_: None)
    run(tmp_path, gpu=0.0)
    assert [type(report) for report in reports] == [Started]
    with SystemMetrics(cuda=False) as metrics:
        metrics.points(40)


# --- GPUs on which trials fail ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "bad"),
    [
        ([(0, "1")], {}),
        ([(0, "1"), (0, "1")], {}),
        ([(0, "1"), (1, "1")], {"1": [0, 1]}),
        ([(0, "0"), (0, "1"), (1, "1")], {}),
        ([(0, "0"), (0, "1"), (1, "1"), (2, "1")], {"1": [1, 2]}),
        ([(0, "0"), (1, "1"), (2, "0"), (3, "1")], {"0": [0, 2], "1": [1, 3]}),
        ([(0, ""), (1, "")], {}),
    ],
)
def test_two_trials_blame_a_gpu_and_two_gpus_a_trial(
    tmp_path: Path, failures: list[tuple[int, str]], bad: dict[str, list[int]]
) -> None:
    journal = make_journal(tmp_path)
    for number, gpu in failures:
        attempt = journal.start_attempt(number)
        journal.start_trial(number, attempt, "config", {"host": "h", "gpus": gpu})
        journal.end_attempt(number, attempt, "CUDA error", Cause.DEVICE)
    assert bad_devices(journal) == {Device("h", gpu): trials for gpu, trials in bad.items()}


def test_failures_on_a_bad_gpu_do_not_count_against_trials(tmp_path: Path) -> None:
    sweeping = tuning(tmp_path, retries=0)
    sweeping.start(2)
    for number in (0, 1):
        sweeping.tell(number, Started("config", {"host": "h", "node": "n", "gpus": "1"}, 0))
        sweeping.crash(number, "CUDA error: unspecified launch failure", Cause.DEVICE)
    outcomes = [sweeping.journal.outcome(number) for number in (0, 1)]
    assert outcomes == ["failed", "running"], "at the first there was no reason to blame the GPU"
    assert sweeping.start() == [1], "tried again"


# --- A sweep that is resumed elsewhere --------------------------------------------------------------------------------


def begun(journal: Journal, config: Any, facts: dict[str, Any]) -> None:
    journal.add_trial(0, {}, config.to_yaml(), "random")
    journal.start_attempt(0)
    environment = (
        {"host": "h", "device": "A100", DECIDED: json.dumps(facts)} if facts else {"host": "h", "device": "A100"}
    )
    journal.start_trial(0, 1, config.to_yaml(), environment)
    journal.end_trial(0, "interrupted")


@pytest.mark.parametrize("gpu", [0.0, 0.5])
def test_a_trial_that_began_on_a_gpu_goes_on_without_one_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], gpu: float
) -> None:
    journal = make_journal(tmp_path)
    begun(journal, wishing(tiny(), {}), {"device": "cuda"})
    check_devices(make_sweep(resources={"gpu": gpu}), journal, Screen())
    said = capsys.readouterr().out
    assert ("Trials that began on a GPU go on without one: 0." in said) == (gpu == 0)


def test_trials_that_ask_for_a_gpu_are_refused_before_they_run(tmp_path: Path) -> None:
    journal = make_journal(tmp_path)
    begun(journal, wishing(tiny(), {"device": "cuda"}), {"device": "cuda"})
    with pytest.raises(ValueError, match=r"^trial 0 must train on a GPU \(train.device is cuda\), but trials get none"):
        check_devices(make_sweep(resources={"gpu": 0}), journal, Screen())
    check_devices(make_sweep(resources={"gpu": 1}), journal, Screen())


def test_wishes_of_an_older_version_are_restored(tmp_path: Path) -> None:
    """It wrote `device: cuda` and `precision: bfloat16` where the sweep left them to the machine."""
    journal = make_journal(tmp_path)
    base = trial_data()
    base["train"]["precision"] = "float32"
    sweep = make_sweep(base=base | {"loss": {"kl": {"control": "fixed"}}})
    frozen = tiny(train__device="cuda", train__threads=4)
    begun(journal, frozen, {})
    restore_wishes(sweep, journal)
    assert journal.trial(0).config == wishing(tiny(), {"precision": "float32"}).to_yaml()


def test_gpu_hours_are_those_of_each_attempt_since_its_worker_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for a GPU costs nothing, and a share changed later changes no past."""
    now = [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    sweeping = tuning(tmp_path)
    journal = sweeping.journal
    for trial, share in ((0, "1"), (1, "0.25"), (2, None)):
        sweeping.start()
        now[0] += 500  # waiting
        if share:
            journal.start_trial(trial, 1, "config", {"node": "n", "gpu": share})
            now[0] += 100
            journal.end_attempt(trial, 1)
    assert journal.gpu_seconds(0.5) == pytest.approx(125)
