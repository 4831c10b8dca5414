"""Files that cross the gap: digests, manifests, plans, and the stores that hold them."""
