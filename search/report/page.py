"""One self-contained HTML page about one or several sweeps, from their MLflow runs alone."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jinja2
from markupsafe import Markup
from mlflow import MlflowClient

from search.names import Artifact
from search.paths import sweep_file
from search.questions.sentences import effect_in_words, sentence_of
from search.report.answered import Answered, said_of
from search.report.curves import POINTS, curves_of
from search.report.gaps import gaps_in_words
from search.report.page_data import counted_diagnoses, data_of, failures
from search.report.pictures import BUDGET, KINDS, TRIALS, sprites
from search.report.questions_data import BUDGET as QUESTIONS_BUDGET
from search.report.questions_data import questions_of
from search.report.reported import Reported
from search.tracking.errors import explain
from search.tracking.reader import SweepRun, read_artifact
from vaegan_core.evaluation import METRICS, PIXEL_MSE
from vaegan_core.tensor_files import write_atomically

WEB = Path(__file__).parent / "web"
SCRIPTS = (
    "state.js",
    "canvas.js",
    "front.js",
    "parallel.js",
    "table.js",
    "matters.js",
    "pictures.js",
    "curves.js",
    "questions.js",
    "main.js",
)
STYLE = "page.css"


def write_page(client: MlflowClient, reported: Sequence[Reported], path: Path) -> None:
    """Writes the page of these sweeps, whole or not at all."""
    write_atomically(path, render(client, reported).encode())


def write_sweep_file(client: MlflowClient, sweep: SweepRun) -> None:
    """Writes the sweep's YAML, if MLflow has it, where the commands on its page look for it, unless a file is there."""
    path = sweep_file(sweep.name)
    if not path.exists():
        with suppress(ValueError):
            write_atomically(path, read_artifact(client, sweep.run_id, Artifact.SWEEP))


def upload_page(client: MlflowClient, reported: Reported, path: Path) -> str:
    """Makes the page an artifact of the sweep's run; returns what became of it, in words."""
    try:
        with TemporaryDirectory() as folder:
            copy = Path(folder) / Artifact.REPORT
            copy.write_bytes(path.read_bytes())
            client.log_artifact(reported.sweep.run_id, str(copy))
    except Exception as error:
        return f"MLflow did not take the page ({explain(error)}); it is kept here alone."
    return f"In MLflow: artifact {Artifact.REPORT} of run {reported.sweep.run_id}."


def render(client: MlflowClient, reported: Sequence[Reported]) -> str:
    """The page as HTML, with everything it shows inside it. Raises ValueError without a sweep."""
    if not reported:
        raise ValueError("a report needs the name of a sweep")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(WEB), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["p"] = lambda p: "< 0.001" if p < 0.001 else f"{p:.2g}"
    script = "".join((WEB / name).read_text(encoding="utf-8") for name in SCRIPTS)
    style = (WEB / STYLE).read_text(encoding="utf-8")
    page: str = environment.get_template("page.html.j2").render(
        title=" · ".join(each.sweep.name for each in reported),
        sweeps=[_section(client, each) for each in reported],
        questions=any(each.answered for each in reported),
        meanings={
            name: METRICS[name].meaning for each in reported for name in each.sweep.objectives if name in METRICS
        },
        data=_inert({"kinds": KINDS, "sweeps": [_interactive(client, each, len(reported)) for each in reported]}),
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
    )
    return page


def _interactive(client: MlflowClient, reported: Reported, num_sweeps: int) -> dict[str, Any]:
    """What the scripts need of one sweep; the budgets of a page are shared by its sweeps."""
    pictures = sprites(client, reported, BUDGET // num_sweeps, max(1, TRIALS // num_sweeps))
    curves = curves_of(client, reported, POINTS // num_sweeps)
    questions = questions_of(client, reported, QUESTIONS_BUDGET // num_sweeps)
    return {**data_of(client, reported), "curves": curves, "pictures": pictures, **questions}


def _section(client: MlflowClient, reported: Reported) -> dict[str, Any]:
    """What is said of one sweep, for the template."""
    sweep, scales = reported.sweep, reported.scales
    best = sweep.ranked[0] if sweep.completed and scales else None
    started = client.get_run(sweep.run_id).info.start_time / 1000
    return {
        "sweep": sweep,
        "findings": reported.findings,
        "asks_only": reported.asks_only,
        "answered": [_answered(each) for each in reported.answered],
        "asked": said_of(reported.answered),
        "started": datetime.datetime.fromtimestamp(started, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "outcomes": Counter(str(trial.outcome) for trial in sweep.trials).most_common(),
        "best": best,
        "share": scales.scores(best.final)[0] if best and scales and _scored(best.final, scales.distance) else None,
        "hypervolume": _hypervolume(reported),
        "scales": scales,
        "gaps": gaps_in_words(best.number, best.final, sweep.baselines) if best else [],
        "importances": _importances(reported),
        "failures": failures(sweep.trials),
        "diagnoses": counted_diagnoses(sweep.trials),
    }


def _answered(each: Answered) -> dict[str, Any]:
    """A question and what is said of each of its levels, for the template."""
    asked = each.question.asked
    return {
        "question": each.question,
        "verdicts": [answer.verdict for answer in each.answers],
        "levels": [
            {
                "answer": answer,
                "level": asked.levels[answer.level],
                "sentence": sentence_of(answer),
                "notes": notes,
                "effects": {
                    name: effect_in_words(asked, effect)
                    for name, effect in {
                        "average": answer.average,
                        "typical": answer.typical,
                        f"tuned, best of {answer.draws}": answer.tuned,
                    }.items()
                    if effect
                },
            }
            for answer, notes in zip(each.answers, each.notes, strict=True)
        ],
    }


def _scored(metrics: Any, distance: str) -> bool:
    return PIXEL_MSE in metrics and distance in metrics


def _hypervolume(reported: Reported) -> float | None:
    scales = reported.scales
    if scales is None or not all(_scored(trial.final, scales.distance) for trial in reported.sweep.completed):
        return None
    return reported.sweep.hypervolume


def _importances(reported: Reported) -> dict[str, list[Any]]:
    """By objective, the most important parameter first."""
    found = {
        name: [i for i in reported.findings.importances if i.objective == name] for name in reported.sweep.objectives
    }
    return {
        name: sorted(items, key=lambda item: (not item.told, -item.share)) for name, items in found.items() if items
    }


def _inert(data: Any) -> Markup:
    """JSON that no text in it can end the script element of."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
