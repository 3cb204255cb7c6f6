"""Who is best: fronts, ranks, confirmed means; and how far a sweep has come."""
