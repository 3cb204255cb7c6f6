"""What a sweep is: its YAML, validated, and the space it searches."""
