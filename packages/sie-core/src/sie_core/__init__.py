"""What two or more parts of SIE must agree on, and nothing else."""

__version__ = "0.3.1"
