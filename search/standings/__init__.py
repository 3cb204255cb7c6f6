"""Who stands where: fronts, ranks, confirmed means, progress."""
