"""Traces, for a collector that speaks OTLP. Nothing here is imported while none is configured."""
