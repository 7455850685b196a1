"""The use cases: pulling, and the fill behind a miss."""
