"""What a sweep found: full-fidelity trials by rank, their front; to MLflow, to the report, to the screen."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from search.config import JOURNAL_FILE, REPORT_FILE, Sweep
from search.journal import FINAL_OUTCOMES, Journal, TrialRecord
from search.live import trial_table
from search.names import MODEL_ARTIFACT
from search.report import write_report
from search.standings import Confirmation, Standings, standings
from search.tracking import MlflowWriter
from search.trial import trial_directory


def publish_results(sweep: Sweep, directory: Path, journal: Journal, uri: str, stopped: str) -> None:
    """Everything that is known only at the end, to MLflow: front, weights of the best, summary. Then the report."""
    found = standings(sweep, journal)
    models = {
        trial.number: path
        for trial in found.best
        if (path := (trial_directory(directory, trial.number) / MODEL_ARTIFACT).resolve()).is_file()
    }
    best = [trial.number for trial in found.best if trial.number in models][: sweep.config.tracking.keep_models]
    trials = journal.trials()
    metrics = {"sweep/hypervolume": found.hypervolume, "sweep/trials": float(len(trials))}
    if found.best:
        metrics |= {f"best/{name}": value for name, value in found.metrics[found.best[0].number].items()}
    writer = MlflowWriter(sweep, journal, uri)
    writer.log_confirmations(found.confirmations)
    writer.log_results(best, found.front, found.infeasible, models, summarise(sweep, found, trials, stopped), metrics)
    writer.close_parent("KILLED" if stopped else "FINISHED")
    write_report(writer.client, sweep.config.name, directory / REPORT_FILE)


def summarise(sweep: Sweep, found: Standings, trials: list[TrialRecord], stopped: str) -> str:
    """The parent run's description, in Markdown."""
    drawn = [trial for trial in trials if trial.replicate_of is None]
    counts = {outcome: sum(t.outcome == outcome for t in drawn) for outcome in (*FINAL_OUTCOMES, "interrupted")}
    lines = [
        f"**{sweep.config.name}**: {len(drawn)} trials; "
        + ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        + (f". Stopped early: {stopped}." if stopped else "."),
        f"Hypervolume {found.hypervolume:.3f}. An image's own mean colour scores pixel MSE "
        f"{found.scales.mean_color_mse:.4f} and samples FD {found.scales.mean_color_fd:.0f}; "
        f"real frames against real frames score FD {found.scales.floor_fd:.0f}.",
        "",
        "| trial | " + " | ".join(sweep.config.objectives) + " | on front | with fresh seeds |",
        "|---|" + "---|" * (len(sweep.config.objectives) + 2),
    ]
    for trial in found.best[:10]:
        values = " | ".join(f"{found.metrics[trial.number][name]:.4g}" for name in sweep.config.objectives)
        again = in_words(found.confirmations.get(trial.number))
        lines.append(f"| {trial.number} | {values} | {'yes' if trial.number in found.front else 'no'} | {again} |")
    return "\n".join(lines)


def in_words(confirmation: Confirmation | None) -> str:
    if confirmation is None:
        return ""
    values = ", ".join(
        f"{name} {mean:.4g} ± {confirmation.half_width[name]:.2g}" for name, mean in confirmation.mean.items()
    )
    return f"{values} ({confirmation.completed} of {confirmation.begun} seeds)"


def print_results(sweep: Sweep, directory: Path, console: Console) -> None:
    """The table of all trials, best first, and what one would type next."""
    journal = Journal(directory / JOURNAL_FILE)
    found = standings(sweep, journal)
    best = [trial.number for trial in found.best]
    rest = [trial for trial in journal.trials() if trial.number not in best and trial.replicate_of is None]
    console.print(trial_table(sweep, journal, [*found.best, *rest], found.front))
    console.print("* no other trial is better on every objective\n" if found.front else "no trial was completed\n")
    for number in (number for number in best if number in found.confirmations):
        console.print(
            f"Trial {number} with fresh seeds, 95 % intervals: {in_words(found.confirmations[number])}", highlight=False
        )
    for number in found.infeasible:
        violated = [each for each in sweep.constraints if each.violation(found.metrics[number]) > 0]
        console.print(f"Trial {number} violates {', '.join(map(str, violated))}", highlight=False)
    scales = found.scales
    console.print(
        f"Painting each test image in its own mean colour: pixel MSE {scales.mean_color_mse:.4f}, FD "
        f"{scales.mean_color_fd:.0f}; real frames: FD {scales.floor_fd:.0f}.",
        highlight=False,
    )
    if found.best:
        s1, _ = scales.scores(found.metrics[best[0]])
        worse = "; that is worse than the mean colour: train longer, or widen the space" if s1 > 1 else ""
        console.print(f"Best: trial {best[0]}, pixel MSE at {s1:.0%} of the mean colour's{worse}.", highlight=False)
        name = sweep.config.name
        run_id = journal.trial(best[0]).run_id
        console.print(f"The report is {directory / REPORT_FILE}.", highlight=False)
        console.print(f"\nNext:\n  vaegan ui\n  vaegan promote {name}\n  vaegan rerun {run_id}", highlight=False)
    journal.close()
