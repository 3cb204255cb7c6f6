"""Keeps secrets out of what is said, logged or stored."""

from __future__ import annotations

import os
import re

HIDDEN = "…"
_SHORTEST = 6
"""A shorter value of a secret variable would be found in ordinary words."""
_SECRET_WORD = r"passw|passphrase|pwd|secret|token|credential|signature|api_?key|access_?key"
_SECRET_VARIABLE = re.compile(rf"^(?!(?:OLD)?PWD$).*(?:{_SECRET_WORD}|_pass$|_key$)", re.IGNORECASE)
_USER_AND_COLON = r"[^/\s@\[{:…]*:(?!\d+(?:[/?#\s,;.)'\"]|$))"
"""What precedes a password. A number may be a port instead."""
_USER_INFO = re.compile(rf"(?<=://)(?:{_USER_AND_COLON}[^@\n]*@(?:\S*@)?|[^/\s]\S*@)")
"""All before the last @ of a URI; after a user's name and a colon, a password may hold spaces."""
_CUT_OFF = re.compile(rf"(?<=://){_USER_AND_COLON}[^\s@/]\S*")
"""A user and a password without the host that should follow."""
_QUERY = re.compile(
    rf"([?&;](?:[\w.%-]*(?:{_SECRET_WORD})[\w.%-]*|pass|key|auth|sig)=)\S*?(?=[&;][\w.%-]+=|\s|$)", re.IGNORECASE
)


def redact(text: str) -> str:
    """`text` without user names, passwords and tokens in URIs, and without values of environment variables that hold
    secrets by their name (password, secret, token, key, credential). What may be a secret counts as one."""
    text = _QUERY.sub(rf"\g<1>{HIDDEN}", text)
    text = _CUT_OFF.sub(HIDDEN, _USER_INFO.sub(f"{HIDDEN}@", text))
    values = [value for name, value in os.environ.items() if len(value) >= _SHORTEST and _SECRET_VARIABLE.search(name)]
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def has_secret(uri: str) -> bool:
    """Whether a URI holds more than the name of a database's user: a password, a token, or a secret in its query."""
    user = _USER_INFO.search(uri)
    if user is not None and (":" in user[0] or uri.startswith(("http:", "https:"))):
        return True
    return bool(_QUERY.search(uri) or _CUT_OFF.search(uri))
