"""Ranges of numbers that several parts of a configuration have."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Steps = Annotated[int, Field(ge=1, le=10**9)]
AdamBeta = Annotated[float, Field(ge=0, lt=1)]
