"""What the three servers share: answers and errors, the token check, and a process that drains before it ends."""
