"""Frames of a 3D shooter."""
