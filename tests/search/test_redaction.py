from __future__ import annotations

import random
import string
from collections.abc import Iterator

import pytest

from search.redaction import has_secret, redact
from search.terminal import Screen


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pass@db/mlflow is down", "postgresql://…@db/mlflow is down"),
        ("http://me:p@ss@db is down", "http://…@db is down"),
        ("two: http://a:b@c http://d:e@f", "two: http://…@c http://…@f"),
        ("http://me:12/34@db is down", "http://…@db is down"),
        ("http://me:pass word@db/x then me@x.org", "http://…@db/x then me@x.org"),
        ("http://host:5000/x?password=a#b&c&ssl=1 ended", "http://host:5000/x?password=…&ssl=1 ended"),
        ("http://host:5000/path at 10:30, mail a@b.org", "http://host:5000/path at 10:30, mail a@b.org"),
        ("http://[::1]:5000/ or http://host:5000. Then a@b", "http://[::1]:5000/ or http://host:5000. Then a@b"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("sqlite:////runs/mlflow.db", "sqlite:////runs/mlflow.db"),
    ],
)
def test_user_and_password_of_a_uri_are_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert has_secret(text) == (text != shown)
    assert redact(shown) == shown


def test_a_token_in_place_of_a_user_is_a_secret_but_the_name_of_a_database_user_is_not() -> None:
    assert redact("https://token123@host/mlflow") == "https://…@host/mlflow"
    assert has_secret("https://token123@host/mlflow")
    assert not has_secret("postgresql://mlflow@db/mlflow")


ANYTHING = string.ascii_letters + string.digits + string.punctuation
PLACES = (
    "postgresql://me:{secret}@db.example.org:5432/mlflow",
    "mysql+pymysql://:{secret}@db/mlflow?charset=utf8",
    "http://me@corp.org:{secret}@host/path",
    "https://{secret}@host:8443/mlflow#/experiments/1",
    "postgresql://db/mlflow?password={secret}",
    "postgresql://db/mlflow?user=me&password={secret}&sslmode=require",
    "http://host/api?access_token={secret}",
    "https://bucket.s3.example.org/x?X-Amz-Credential={secret}&X-Amz-Signature={secret}",
    "mssql://db;PWD={secret};Encrypt=yes",
)
SENTENCES = ("{uri}", "MLflow at {uri} does not answer", "(see '{uri}', \"{uri}\")", "first {uri}\nthen {uri}\n")


def secrets(seed: int) -> Iterator[str]:
    """Passwords as people and machines make them, every printable character among them; none begins with a slash where
    a token in place of a user would make it a path, and none is cut short by what looks like the next parameter."""
    draw = random.Random(seed)
    for _ in range(100):
        secret = "".join(draw.choices(ANYTHING, k=draw.randint(8, 30)))
        yield secret.lstrip("/[").replace("&", "%").replace(";", ":") or "a:/@?#"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("sentence", SENTENCES)
def test_no_part_of_a_secret_in_a_uri_is_shown_whatever_it_is_made_of(place: str, sentence: str) -> None:
    for secret in secrets(seed=len(place)):
        uri = place.format(secret=secret)
        assert has_secret(uri), uri
        shown = redact(sentence.format(uri=uri))
        parts = [secret[start : start + 4] for start in range(len(secret) - 3)]
        assert not [part for part in parts if part in shown], (uri, shown)
        assert redact(shown) == shown


def test_values_of_secret_variables_are_hidden_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a+b/c=long")
    monkeypatch.setenv("HOME_OF_THE_TEST", "not a secret")
    assert redact("it said 'correct horse' to a+b/c=long, not a secret") == "it said '…' to …, not a secret"


def test_a_short_value_hides_no_ordinary_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "is")
    assert redact("this is it") == "this is it"


def test_nothing_that_is_said_holds_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().say("MLflow on postgresql://me:hunter22@db/mlflow")
    assert capsys.readouterr().out == "MLflow on postgresql://…@db/mlflow\n"
