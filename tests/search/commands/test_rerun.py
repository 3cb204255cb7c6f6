"""What `vaegan rerun` shows of results that are planted."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer import Exit

from search.commands.rerun import CURVES_SHOWN, rerun, show
from search.local.compare import Comparison, CurveDifference, Difference, compare
from search.local.rerun import Result, Row
from search.local.seeds import FreshSeeds, Spread
from search.terminal import Screen

NO_SEEDS = FreshSeeds({}, seeds=0, diverged=0)
IDENTICAL = Result(
    original="a" * 32,
    run_id="b" * 32,
    variant="",
    outcome="completed",
    reason="",
    reached=40,
    step=40,
    comparison=Comparison(40, 330, 0, None, ()),
    ended_alike=True,
    rows=(Row("val/pixel_mse", 0.25, 0.25, None), Row("val/kl", 3.0, 3.0, None)),
    seeds=NO_SEEDS,
    changes=(),
    seed=5,
    nonfinite=False,
)
FIRST = Difference("latent/std", 10, 0.5, 0.75)
CURVES = (
    CurveDifference("latent/std", 10, 3, 0.25, 20),
    CurveDifference("val/pixel_mse", 20, 2, 0.5, 40),
    *(CurveDifference(f"train/term_{index}", 20, 1, 0.1, 20) for index in range(CURVES_SHOWN + 2)),
)
SPREAD = Spread(0.26, 0.01, 3)


def shown(**changes: Any) -> str:
    out = StringIO()
    show(replace(IDENTICAL, **changes), Screen(Console(file=out, width=200)))
    return out.getvalue()


def test_an_identical_rerun_says_so_and_shows_values_alone() -> None:
    text = shown()
    assert "Identical: all 330 curve points to step 40 are the same, bit for bit." in text
    assert "fresh seed" not in text
    assert "largest" not in text
    assert f"Its curves are in MLflow run {'b' * 32}, below the trial's run." in text


def test_a_different_one_shows_where_curves_part_and_what_would_tell_whether_it_matters() -> None:
    text = shown(
        comparison=Comparison(40, 330, 12, FIRST, CURVES),
        rows=(Row("val/pixel_mse", 0.25, 0.5, None), IDENTICAL.rows[1]),
    )
    assert "Different: 12 of 330 curve points; first at step 10, latent/std: 0.5 then, 0.75 now." in text
    [row] = [line.split("│") for line in text.splitlines() if "val/pixel_mse" in line]
    assert [cell.strip() for cell in row[1:7]] == ["val/pixel_mse", "0.25", "0.5", "+0.25", "0.5", "20"]
    assert "… and 3 more curves: --json has them" in text
    assert "cannot be told: the original has none, and it takes two" in text
    assert [f"rerun {'a' * 32} --set train.seed={seed}" in text for seed in (5, 6, 7)] == [False, True, True]


@pytest.mark.parametrize(
    ("now", "beyond", "words"),
    [(0.27, "no", "1 of 1 values lie where"), (0.5, "yes", "0 of 1 values lie where")],
)
def test_fresh_seeds_tell_whether_a_difference_is_more_than_theirs(now: float, beyond: str, words: str) -> None:
    row = Row("val/pixel_mse", 0.25, now, SPREAD)
    text = shown(
        variant="loss.kl.sigma=1", rows=(row,), seeds=FreshSeeds({"val/pixel_mse": (0.25, 0.26, 0.27)}, 3, diverged=1)
    )
    assert "Trained the variant loss.kl.sigma=1 to step 40." in text
    assert "variant" in text
    assert "fresh seeds (3), mean ± SD" in text
    [line] = [line for line in text.splitlines() if line.startswith("│ val/pixel_mse")]
    assert "0.26 ± 0.01" in line
    assert line.split("│")[-2].strip() == beyond
    assert words in text
    assert ("beyond: val/pixel_mse" in text) == (beyond == "yes")
    assert "1 fresh seed diverged and do not count." in text


def test_an_end_before_its_time_is_said() -> None:
    text = shown(outcome="diverged", reason="gradient of x is not finite at step 3", nonfinite=True)
    assert "Ended early: gradient of x is not finite at step 3." in text
    assert not replace(IDENTICAL, nonfinite=True).succeeded
    assert replace(IDENTICAL, comparison=Comparison(0, 0, 0, None, ())).succeeded, "nothing to compare with"
    assert "no curve there to compare with" in shown(comparison=Comparison(0, 0, 0, None, ()), rows=())
    assert "did not end as the original" in shown(ended_alike=False)


def test_a_divergence_before_the_first_point_counts_no_points() -> None:
    """It said that "all 0 curve points to step 0 are the same, bit for bit", also where a closer look had ended it."""
    early: dict[str, Any] = {"outcome": "diverged", "comparison": Comparison(0, 0, 0, None, ()), "rows": (), "step": 0}
    assert "Identical: it diverged as the original did, before the first point of a curve." in shown(**early)
    assert not replace(IDENTICAL, **early, nonfinite=True).comparable
    assert "Identical" not in shown(**early, nonfinite=True)


def test_json_has_null_where_a_number_is_not_finite(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It had NaN and Infinity, which are no JSON: curves that another program wrote may hold anything."""
    then, now = {("train/kl", 40): math.nan, ("val/kl", 40): 1.7e308}, {("train/kl", 40): 1.0, ("val/kl", 40): -1.7e308}
    result = replace(
        IDENTICAL, comparison=compare(then, now, 40), rows=(Row("train/kl", math.nan, 1.0, Spread(1.0, math.inf, 3)),)
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///unused.db")
    monkeypatch.setattr("search.tracking.client.open_existing", lambda _: None)
    monkeypatch.setattr("search.local.plan.make_plan", lambda *_: SimpleNamespace(steps=40))
    monkeypatch.setattr("search.local.plan.in_words", lambda _: [])
    monkeypatch.setattr("search.local.rerun.rerun", lambda *_: result)
    with pytest.raises(Exit):
        rerun("a" * 32, as_json=True)
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["comparison"]["first"] == {"key": "train/kl", "step": 40, "before": None, "now": 1.0}
    assert [curve["largest"] for curve in found["comparison"]["curves"]] == [None, None]
    assert [(row["then"], row["half_width"]) for row in found["rows"]] == [(None, None)]
