"""Where a sweep lives that may outlast every machine it runs on: a bucket, or a directory mounted everywhere."""
