"""Frames of people's own videos and images."""
