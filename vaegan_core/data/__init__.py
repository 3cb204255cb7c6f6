"""Frame sets: where frames come from, and how they lie on disk and reach a batch."""
