"""The training loop, and how one step updates the networks."""
