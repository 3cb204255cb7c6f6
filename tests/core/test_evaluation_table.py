"""The table of validation metrics in vaegan_core/README.md is the one that the code has."""

import re
from pathlib import Path

import vaegan_core
from vaegan_core.evaluation import METRICS

README = (Path(vaegan_core.__file__).parent / "README.md").read_text(encoding="utf-8")


def test_every_metric_stands_in_the_readme_with_its_meaning() -> None:
    rows = re.findall(r"^\| `(val/\w+)` \| (.+) \|$", README, re.MULTILINE)
    assert {key: meaning.replace(r"\|", "|") for key, meaning in rows} == {
        key: metric.meaning for key, metric in METRICS.items()
    }
    assert [key for key, _ in rows] == list(METRICS), "in the order of the code"


def test_the_readme_names_no_other_validation_metric() -> None:
    assert set(re.findall(r"val/\w+", README)) == set(METRICS)
