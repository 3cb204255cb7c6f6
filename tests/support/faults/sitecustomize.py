"""Faults for trials and drivers of the product as it is: Python imports this module first where it lies on PYTHONPATH.

A trial's fault follows from its `loss.generator.prior`, see FAULTS; a fault "once" leaves a file in $VAEGAN_FAULTS and
does not happen again. With $VAEGAN_JOURNAL_PAGES the disk is full once a journal has that number of pages.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FAULTS = {0.02: "crash", 0.03: "crash once", 0.04: "hang", 0.05: "out of memory", 0.06: "out of memory once"}
FAULTY_STEP = 30


def patch_trainer(module: Any) -> None:
    import torch

    train_step = module.Trainer.train_step

    def faulty_step(self: Any) -> None:
        fault = FAULTS.get(self.config.loss.generator.prior, "")
        if self.step + 1 == FAULTY_STEP and fault:
            mark = (
                Path(os.environ["VAEGAN_FAULTS"]) / f"{fault} {self.config.train.seed} {self.config.loss.feature.recon}"
            )
            before = mark.exists()
            mark.touch()
            if not (before and fault.endswith("once")):
                if fault == "hang":
                    time.sleep(600)
                error = torch.OutOfMemoryError if fault.startswith("out of memory") else RuntimeError
                raise error(f"injected: {fault}")
        train_step(self)

    module.Trainer.train_step = faulty_step


def patch_journal(module: Any) -> None:
    connect = module.Journal.__init__

    def limited(self: Any, path: Path) -> None:
        connect(self, path)
        self.db.execute(f"PRAGMA max_page_count = {os.environ['VAEGAN_JOURNAL_PAGES']}")

    if "VAEGAN_JOURNAL_PAGES" in os.environ:
        module.Journal.__init__ = limited


PATCHES = {"vaegan_core.training.trainer": patch_trainer, "search.journal.journal": patch_journal}


class PatchingLoader(importlib.abc.Loader):
    def __init__(self, loader: Any, patch: Callable[[Any], None]) -> None:
        self.loader, self.patch = loader, patch

    def create_module(self, spec: Any) -> Any:
        return self.loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self.loader.exec_module(module)
        self.patch(module)


class PatchingFinder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:  # noqa: ARG002
        if name not in PATCHES:
            return None
        spec: Any = importlib.machinery.PathFinder.find_spec(name, path)
        spec.loader = PatchingLoader(spec.loader, PATCHES[name])
        return spec


sys.meta_path.insert(0, PatchingFinder())
