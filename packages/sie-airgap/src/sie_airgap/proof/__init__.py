"""Golden answers: recorded on the connected side, compared on the far side."""
