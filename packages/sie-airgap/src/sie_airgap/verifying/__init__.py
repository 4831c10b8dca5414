"""Every stop held against the lock."""
