"""The front door of an SIE cluster: routes calls to workers and forwards their bytes unread."""

__version__ = "0.3.1"
