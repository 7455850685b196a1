"""The benchmark: this daemon beside its peers, as pull-through caches of one scripted origin, in one run."""
