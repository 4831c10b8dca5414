"""What comes from outside, altered for ever: each format is read, or refused by name, and nothing else happens."""
