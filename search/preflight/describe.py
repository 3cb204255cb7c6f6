"""What a valid sweep would do, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator

from search.config.distributions import in_words
from search.config.strategies import LEARNS_DIVERGENCE, MODELS, UNCONSTRAINED
from search.config.sweep import Sweep
from search.paths import sweeps_directory, tracking_uri
from search.preflight.machine import beyond_this_machine, odd_numbers
from search.preflight.questions import questions_in_words, read_pilot
from search.preflight.storage import check_storage, check_tracking
from search.redaction import redact
from search.running.resources import suggestions
from search.running.sweep_frames import check_inception
from search.standings.progress import expected_steps, most_steps
from search.terminal import counted
from vaegan_core.data.frames import FEATURES_FILE, FrameSet
from vaegan_core.metrics.settings import training_minutes
from vaegan_core.model.sizes import check_size


def describe(sweep: Sweep) -> Iterator[str]:
    """Yields lines for people.

    Raises ValueError when the frames are missing or too small for the networks, the Inception weights are not usable,
    or the sweep's storage cannot be written.
    """
    config = sweep.config
    frame_set = FrameSet.open(config.base["frames"])
    manifest = frame_set.manifest
    configs = list(suggestions(sweep))
    for trial in configs:
        check_size(trial, (manifest.height, manifest.width))
    inception_weights = check_inception(sweep)
    check_storage(sweeps_directory())
    check_tracking(tracking_uri(config.tracking.uri), config.tracking.experiment)
    size = sweep.space.size()
    parameters = sweep.space.parameters()
    yield f"{config.name}: valid."
    yield (
        f"Frames: {frame_set.num_train} training, {len(frame_set) - frame_set.num_train} test, "
        f"{manifest.width}x{manifest.height}, fingerprint {frame_set.fingerprint} ({config.base['frames']})."
    )
    if not (frame_set.path and (frame_set.path / FEATURES_FILE).is_file()):
        minutes = training_minutes(manifest.height, manifest.width)
        yield f"The frames have no feature network yet; the sweep first trains it, about {minutes} min on a CPU core."
    if parameters:
        amount = "continuous" if math.isinf(size) else counted(size, "configuration")
        yield (
            f"Space: {counted(len(parameters), 'parameter')}, {amount}; "
            f"{len(configs) - sweep.trials_of_block} random suggestions are valid trials."
        )
    elif config.points:
        yield f"No space: {counted(len(config.points), 'named point')}, {', '.join(config.points)}."
    priors = sweep.space.priors()
    for name, distribution in parameters.items():
        prior = priors.get(name)
        believed = f"; {prior.value} is believed to be good (sure: {prior.sure})" if prior else ""
        yield f"  {name}: {in_words(distribution)}{believed}"
    yield from questions_in_words(sweep, read_pilot(sweep))
    yield from _plan(sweep)
    for note in (*odd_numbers(sweep, frame_set), *beyond_this_machine(sweep, frame_set)):
        yield f"Note: {note}"
    if inception_weights is not None:
        yield f"Each trial's last evaluation has val/samples_fid, with the weights in {inception_weights}."


def _plan(sweep: Sweep) -> Iterator[str]:
    config = sweep.config
    yield f"Objectives, minimized: {', '.join(config.objectives)}."
    if config.constraints:
        yield f"Constraints: {', '.join(map(str, sweep.constraints))}."
    sampler, trials = config.sampler.name, sweep.num_trials
    if trials and sampler not in LEARNS_DIVERGENCE:
        yield f"Note: {sampler} learns nothing from trials that diverge; tpe does."
    if trials and sweep.space.priors() and sampler not in MODELS:
        yield f"Note: {sampler} does not look at priors; {', '.join(MODELS)} do."
    if trials and config.constraints and sampler in UNCONSTRAINED:
        yield f"Note: {sampler} does not see the constraints; they only decide which trials may be called best."
    points = min(trials, len(config.points))
    rungs = f"rungs at {', '.join(map(str, sweep.rungs))}" if sweep.rungs else "no rungs"
    if trials:
        yield f"Trials: {trials} ({points} of them named points), {counted(sweep.steps, 'step')} each, {rungs}."
    if config.confirm:
        best = "the best one is" if config.confirm.top == 1 else f"the best {config.confirm.top} are"
        yield f"Then {best} trained again with {config.confirm.seeds} fresh seeds each."
    yield f"Steps: {expected_steps(sweep):,.0f} expected, {most_steps(sweep):,} at most."
    gpu = config.resources.gpu
    share = "the share of a GPU that it is measured to need, if there is a GPU" if gpu == "auto" else f"{gpu:g} GPU"
    yield f"Each trial takes {config.resources.cpu} CPU and {share}."
    nouns = {"blocks": "block", "trials": "trial", "hours": "hour", "gpu_hours": "GPU hour"}
    given = {key: value for key, value in (config.budget.model_dump() | {"trials": trials}).items() if value}
    if not trials:
        given["blocks"] = config.blocks.at_most
    budgets = [counted(value, nouns[key]) if key in nouns else f"{value:g} GB on disk" for key, value in given.items()]
    yield f"It ends after {' or '.join(budgets)}{', whichever comes first' if len(budgets) > 1 else ''}."
    uri = redact(tracking_uri(config.tracking.uri))
    yield f"Files go to {sweeps_directory() / config.name}, curves to MLflow at {uri}."
