"""The report of a sweep that was not run from a git checkout."""

from __future__ import annotations

from pathlib import Path

import pytest
from delivered import make_sweep_directory, write
from mlflow import MlflowClient

from search.report.page import write_report
from vaegan_core.evaluation import METRICS, PIXEL_MSE


@pytest.mark.parametrize("tags", [{}, {"git_sha": "0123456789abcdef"}])
def test_the_page_names_the_commit_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tags: dict[str, str]
) -> None:
    monkeypatch.setattr("search.tracking.runs.source_tags", lambda: tags)
    directory, uri = make_sweep_directory(tmp_path, "page"), f"sqlite:///{tmp_path}/mlflow.db"
    write(directory, uri).finish("")
    write_report(MlflowClient(uri), "toy", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text().split("<body>")[1]
    assert ("code 0123456789</p>" in page) == bool(tags)
    assert "frames " + "f" * 16 in page
    assert "mean color" in page
    assert f"<b>{PIXEL_MSE}</b>: {METRICS[PIXEL_MSE].meaning}" in page
    assert page.count("data:image/png;base64,") == 6
