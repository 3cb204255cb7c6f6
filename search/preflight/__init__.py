"""What a sweep would do and cost, before it starts."""
