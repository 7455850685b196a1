"""Real servers and real clients, on loopback: run by `make e2e`."""
