"""Keeps secrets out of what is said, logged or stored."""

from __future__ import annotations

import os
import re

_USER_INFO = re.compile(r"(?<=://)[^/\s]+@")
_SECRET_NAMES = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|API_KEY|CREDENTIAL")
_SHORTEST = 6
"""A shorter value of a secret variable would be found in ordinary words."""
HIDDEN = "…"


def redact(text: str) -> str:
    """`text` without user names and passwords in URIs, and without values of environment variables that hold secrets
    by their name (password, secret, token, key, credential)."""
    text = _USER_INFO.sub(f"{HIDDEN}@", text)
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _SECRET_NAMES.search(name.upper()):
            text = text.replace(value, HIDDEN)
    return text


def has_password(uri: str) -> bool:
    """Whether a URI holds more than a user's name before its host."""
    found = _USER_INFO.search(uri)
    return found is not None and ":" in found[0]
