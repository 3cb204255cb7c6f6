"""One training on this machine, without Ray: train and rerun."""
