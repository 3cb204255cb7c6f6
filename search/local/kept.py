"""What a run kept of its training, to continue from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from search.names import Artifact, Tag
from search.paths import CHECKPOINT_FILE
from search.tracking.reader import check_weights, read_artifact
from vaegan_core.tensor_files import read_metadata, write_atomically


@dataclass(frozen=True)
class Kept:
    """A file that a training can continue from."""

    path: Path
    step: int
    whole: bool
    """Whether it is the whole state of the training, and not the averaged autoencoder alone."""

    def in_words(self) -> str:
        if self.whole:
            return (
                f"Continues the whole state of step {self.step} in {self.path}: networks, averaged weights, Adam's "
                "moments, KL control and noise. Nothing starts fresh."
            )
        return (
            f"Continues the averaged weights of encoder and decoder of step {self.step}, which is all that the run "
            "kept. Everything else starts fresh: discriminator, Adam's moments, KL control, noise, and the count of "
            "steps, so that schedules begin again."
        )


def find_kept(client: MlflowClient, run: Run, directory: Path) -> Kept:
    """The whole state, where the run's directory is on this machine and holds it, else its weights, from MLflow (put
    into `directory`) or from where they are kept.

    Raises ValueError where there is neither, and for weights that are not those of the run.
    """
    tags, run_id = run.data.tags, run.info.run_id
    checkpoint = Path(tags.get(Tag.DIRECTORY, "")) / CHECKPOINT_FILE
    if tags.get(Tag.DIRECTORY) and checkpoint.is_file():
        return Kept(checkpoint, int(read_metadata(checkpoint)["step"]), whole=True)
    path = directory / Artifact.MODEL
    if any(item.path == Artifact.MODEL for item in client.list_artifacts(run_id)):
        write_atomically(path, read_artifact(client, run_id, Artifact.MODEL))
    else:
        path = Path(tags.get(Tag.MODEL_PATH, ""))
        if Tag.MODEL_PATH not in tags or not path.is_file():
            where = f"they were at {path}, which is not here" if Tag.MODEL_PATH in tags else "it has none"
            raise ValueError(
                f"run {run_id} has no weights to continue from: {where}. Only trials that reach their last step and "
                "are among the best tracking.keep_models keep theirs; leave --from-checkpoint out to train it again"
            )
    check_weights(path, tags, f"run {run_id}")
    return Kept(path, int(read_metadata(path)["step"]), whole=False)
