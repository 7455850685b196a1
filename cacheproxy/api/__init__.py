"""The doors for clients: the distribution API and the operator's endpoints."""
