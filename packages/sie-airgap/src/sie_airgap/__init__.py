"""Carries models, images and chart of SIE across an air gap and proves that they work there."""

__version__ = "0.3.1"
