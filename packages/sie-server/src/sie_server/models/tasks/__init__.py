"""What callers ask of a model: from a call's items to sequences, and from what was read off them to results."""
