"""The settings of one trial: each with its meaning, range and source."""
