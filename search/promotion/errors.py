"""What ends a promotion that was right by itself."""

from __future__ import annotations


class PromotionLost(RuntimeError):
    """Another process moves, or has moved, the alias."""
