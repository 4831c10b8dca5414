"""Blobs by their digests on this disk, and how they come there."""
