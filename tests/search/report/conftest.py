"""A store with a sweep of each kind, for all tests of the report's page."""

import pytest
from mlflow import MlflowClient
from planted_answers import PlantedAnswers, plant_answers
from planted_store import Plant, plant

from search.names import Outcome
from search.tracking.client import open_client
from vaegan_core.evaluation import PIXEL_MSE

PLANTS = (
    Plant("planted"),
    Plant("other", trials=9, seed=1),
    Plant("single", trials=6, mixture={Outcome.COMPLETED: 1.0}, objectives=(PIXEL_MSE,), pictures=False),
    Plant("empty", trials=0),
    Plant("running", trials=2, mixture={Outcome.RUNNING: 1.0}, pictures=False),
    Plant("diverged", trials=5, mixture={Outcome.DIVERGED: 1.0}, pictures=False),
)


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    uri = f"sqlite:///{tmp_path_factory.mktemp('planted')}/mlflow.db"
    for what in PLANTS:
        plant(uri, what)
    plant_answers(uri, PlantedAnswers("asked", trials=6))
    plant_answers(uri, PlantedAnswers("begun", blocks=0, pictures=False))
    return open_client(uri)
