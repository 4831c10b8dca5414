"""The version, where a pure module may read it without importing the clients."""

__version__ = "0.3.1"
