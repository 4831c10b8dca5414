"""Models as data: a spec and a snapshot's folder become something that turns texts into vectors."""
