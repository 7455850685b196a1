"""A self-hosted container registry and pull-through cache."""
