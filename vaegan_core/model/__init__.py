"""The networks, and the modes they run in."""
