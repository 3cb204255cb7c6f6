"""The one truth of a sweep: SQLite on the driver's disk."""
