"""The ledger of model specs of an SIE cluster."""

__version__ = "0.3.1"
