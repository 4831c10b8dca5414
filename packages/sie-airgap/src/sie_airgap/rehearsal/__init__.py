"""The far side on one machine: pods of the rendered chart in namespaces, and every attempt to leave them counted."""
