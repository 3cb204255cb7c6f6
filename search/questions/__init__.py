"""What a sweep's questions are answered with: statistics on blocks of trials, pure numpy and scipy."""
