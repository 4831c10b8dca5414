"""The Python client of SIE, blocking and awaiting."""

__version__ = "0.3.1"
