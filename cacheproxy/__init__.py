"""A self-hosted container registry and pull-through cache."""

__version__ = "0.1.0"
