"""What travels between callers, gateway and workers: messages, their two encodings, and the envelope around them."""
