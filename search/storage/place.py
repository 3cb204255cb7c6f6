"""Where the files of a sweep lie while it runs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from search.journal.journal import Journal
from search.journal.meta import Meta
from search.paths import sweep_prefix, trial_directory
from search.storage.trial_files import TrialFiles


@dataclass(frozen=True)
class Place:
    """Files that outlast a machine lie in `storage` below `prefix`: in the sweep's own directory, unless it has another
    storage."""

    directory: Path
    """The sweep's own, on the driver's machine."""
    storage: str
    prefix: str = ""
    epoch: int = 0
    """The lease's, in a storage that other drivers may use; else 0."""
    id: str = ""
    """The sweep's."""

    @classmethod
    def of(cls, directory: Path, journal: Journal, epoch: int = 0) -> Place:
        """Where the files of the sweep with that journal lie."""
        directory = directory.resolve()
        storage, id = journal.meta(Meta.STORAGE, ""), journal.meta(Meta.ID, "")
        if not storage:
            return cls(directory, str(directory), id=id)
        return cls(directory, storage, sweep_prefix(directory.name), epoch, id)

    @property
    def is_shared(self) -> bool:
        """Whether the storage is another one than the sweep's own directory."""
        return self.storage != str(self.directory)

    def files(self) -> TrialFiles:
        """The files of its trials."""
        return TrialFiles(self.storage, self.prefix, epoch=self.epoch)

    def scratch(self, trial: int, attempt: int) -> Path:
        """A directory for what an attempt needs on its own machine alone."""
        if not self.is_shared:
            return trial_directory(self.directory, trial)
        return Path(tempfile.gettempdir(), f"vaegan-{self.id}", f"{trial:05d}", str(attempt))
