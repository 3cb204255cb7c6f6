"""The command line: arguments and words only."""
