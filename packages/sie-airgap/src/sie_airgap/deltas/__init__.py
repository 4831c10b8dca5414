"""What the far side has already, and how the rest is made of it."""
