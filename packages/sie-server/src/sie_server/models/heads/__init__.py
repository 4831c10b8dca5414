"""Hidden states to one kind of output."""
