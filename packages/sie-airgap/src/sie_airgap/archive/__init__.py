"""Volumes: planned, written, read, repaired, unpacked."""
