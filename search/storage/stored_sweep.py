"""A sweep that lives in a storage: held by one driver at a time, its journal brought here and back."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from search.advice import resume_command
from search.journal.journal import Journal
from search.journal.meta import Meta
from search.names import JOB, STORAGE_AWAY
from search.paths import JOURNAL_FILE, storage_uri, sweep_prefix, sweeps_directory
from search.storage.frames import has_frames, put_frames
from search.storage.keeper import SHIP_SECONDS, Keeper
from search.storage.lease import Renewal, StorageLease
from search.storage.place import Place
from search.storage.shipping import epoch_of_journal, restore, suffixed
from search.storage.store import StorageUnavailable, Store
from search.storage.trial_files import TrialFiles
from search.terminal import Screen, say_safely
from vaegan_core.data.frames import FrameSet
from vaegan_core.spelling import did_you_mean


@dataclass(frozen=True)
class Held:
    """A sweep that no other driver changes, and what deletes files of its trials."""

    place: Place
    files: TrialFiles | Keeper
    left_out: frozenset[str] = frozenset()
    """Ids of nodes that get no trials."""

    def flush(self) -> None:
        """Waits until the storage, if the sweep has one, has all that is in the journal now."""
        if isinstance(self.files, Keeper):
            self.files.flush()


@contextmanager
def hold(directory: Path, storage: str, say: Callable[[str], None]) -> Iterator[Held]:
    """Holds the sweep in `directory`, under whose local lease this is called, and ships its journal to `storage`; ""
    where the sweep has none but its directory. A journal that another machine has gone on with is fetched first.

    Raises ValueError while another driver holds it, where there is no such sweep, and where its journal names another
    storage; StorageUnavailable while the storage does not answer.
    """
    _check_lives_in(storage, directory)
    if not storage:
        place = _place(directory)
        yield Held(place, place.files())
        return
    try:
        store, prefix = Store(storage), sweep_prefix(directory.name)
    except ValueError as error:  # it was there when the sweep began
        raise StorageUnavailable(str(error)) from None
    if _known_epoch(directory / JOURNAL_FILE):
        store.expected = prefix
    lease = StorageLease(store, prefix, who())
    epoch = lease.take()
    store.expected = prefix
    on_loss = partial(_end, say)
    renewal = Renewal(lease, on_loss)
    try:
        if told := fetch_journal(store, prefix, directory):
            say(told)
        _check_lives_in(storage, directory)
        place = _place(directory, epoch)
        keeper = Keeper(directory / JOURNAL_FILE, place.files(), lease, say, on_loss)
        try:
            yield Held(place, keeper)
        finally:
            if not keeper.close():
                say(
                    f"{storage} does not have all of the journal; elsewhere, trials would repeat what is missing. It "
                    f"is sent when the sweep is continued here: {resume_command(directory.name)}"
                )
    finally:
        renewal.close()


def who() -> str:
    """This driver, for people on other machines."""
    job = os.environ.get(JOB)
    return f"{f'job {job}' if job else f'process {os.getpid()}'} on {platform.node()}"


def _place(directory: Path, epoch: int = 0) -> Place:
    journal = Journal(directory / JOURNAL_FILE)
    if epoch:
        journal.set_meta(Meta.EPOCH, str(epoch))
    place = Place.of(directory, journal, epoch)
    journal.close()
    return place


def _known_storage(path: Path) -> str:
    """The storage that a journal names; "" for none."""
    journal = Journal(path)
    known = journal.meta(Meta.STORAGE, "")
    journal.close()
    return known


def _known_epoch(path: Path) -> int:
    """Epoch of the storage's lease under which a journal was written last; 0 where there was none, or no journal."""
    if not path.is_file():
        return 0
    journal = Journal(path)
    epoch = int(journal.meta(Meta.EPOCH, "0"))
    journal.close()
    return epoch


def _lives(known: str) -> str:
    return f"lives in {known}" if known else "has no storage but its own directory"


def _check_lives_in(storage: str, directory: Path) -> None:
    """Raises ValueError where a journal is in `directory` and names another storage."""
    path, name = directory / JOURNAL_FILE, directory.name
    if path.is_file() and (known := _known_storage(path)) != storage:
        raise ValueError(
            f"the sweep {name} {_lives(known)}, and cannot be continued "
            f"{f'in {storage}' if storage else 'without it'}; continue it with: {resume_command(name)}"
        )


def _end(say: Callable[[str], None], why: str) -> None:
    """Ends this process at once: another driver may run the sweep by now; if none does, another start goes on."""
    try:
        say_safely(say, f"{why[:1].upper()}{why[1:]}. This one stops and writes nothing any more.")
    finally:
        os._exit(STORAGE_AWAY)


def fetch_journal(store: Store, prefix: str, directory: Path) -> str:
    """Brings the journal here unless the one in `directory` is the newest; what to tell a person of it.

    Raises ValueError where there is none in either place.
    """
    path = directory / JOURNAL_FILE
    shipped = epoch_of_journal(store, prefix)
    if path.is_file():
        here = _known_epoch(path)
        if here >= shipped:
            return ""
        for each in suffixed(path):
            if each.exists():
                each.rename(each.with_name(f"driver-{here}-{each.name}"))
    time_shipped = restore(store, prefix, path)
    ago = f", as it was {time.time() - time_shipped:.0f} s ago" if time_shipped else ""
    return (
        f"The journal was restored from {store.uri}{ago}. Up to {2 * SHIP_SECONDS:.0f} s of reports before the end of "
        "its driver may be missing; trials repeat them."
    )


def is_stored(storage: str, name: str) -> bool:
    """Whether a sweep of that name lives in the storage."""
    return bool(storage and epoch_of_journal(Store(storage), sweep_prefix(name)))


def storage_of(name: str, given: str | None) -> str:
    """The storage of the sweep of that name: the one that its journal names, where that is here, else the one given, or
    $VAEGAN_STORAGE, if the sweep lives there; "" for one that has none.

    Raises ValueError for one that has another than the one given, and where it is in none.
    """
    path, uri = sweeps_directory() / name / JOURNAL_FILE, storage_uri(given)
    if path.is_file():
        known = _known_storage(path)
        if given and uri != known:
            raise ValueError(f"the sweep {name} {_lives(known)}, and cannot be continued with --storage {given}")
        return known
    if uri and not is_stored(uri, name):
        store = Store(uri)
        names = sorted({key.split("/")[1] for key in store.keys("sweeps") if "/journal/" in key})
        raise ValueError(
            f"there is no sweep named {name} in {uri}; there are: {', '.join(names) or 'none'}"
            f"{did_you_mean(name, names)}"
        )
    return uri


def store_frames(storage: str, frame_set: FrameSet, screen: Screen) -> None:
    """Brings the frames of a sweep to its storage, if it has one, unless they are there."""
    if storage and frame_set.path is not None and not has_frames(Store(storage), frame_set.fingerprint):
        with screen.stage(f"Bringing the frames to {storage}"):
            put_frames(Store(storage), frame_set.path, frame_set.fingerprint)


def check_name_is_free_in(storage: str, name: str, cluster: str = "") -> None:
    """Raises ValueError where a sweep of that name lives in the storage; `cluster` is where this one was to run."""
    if is_stored(storage, name):
        where = f"{f' --cluster {cluster}' if cluster else ''} --storage {storage}"
        raise ValueError(
            f"a sweep named {name} exists in {storage}; continue it (vaegan resume {name}{where}) or choose another "
            "name (--set name=…)"
        )
