"""One training on this machine, without Ray."""
