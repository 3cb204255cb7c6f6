"""The machines that Ray offers."""
