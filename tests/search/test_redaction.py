from __future__ import annotations

import pytest

from search.redaction import has_password, redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pass@db/mlflow is down", "postgresql://…@db/mlflow is down"),
        ("http://me:p@ss@db is down", "http://…@db is down"),
        ("two: http://a:b@c http://d:e@f", "two: http://…@c http://…@f"),
        ("http://host:5000/path@v2 at 10:30", "http://host:5000/path@v2 at 10:30"),
        ("sqlite:////runs/mlflow.db", "sqlite:////runs/mlflow.db"),
    ],
)
def test_user_and_password_of_a_uri_are_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert has_password(text) == (text != shown)


def test_a_token_in_place_of_a_user_is_hidden_but_no_password() -> None:
    assert redact("https://token123@host/mlflow") == "https://…@host/mlflow"
    assert not has_password("postgresql://mlflow@db/mlflow")


def test_values_of_secret_variables_are_hidden_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a+b/c=long")
    monkeypatch.setenv("HOME_OF_THE_TEST", "not a secret")
    assert redact("it said 'correct horse' to a+b/c=long, not a secret") == "it said '…' to …, not a secret"


def test_a_short_value_hides_no_ordinary_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "is")
    assert redact("this is it") == "this is it"
