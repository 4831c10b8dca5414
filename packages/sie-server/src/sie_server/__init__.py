"""The worker of SIE: embeddings, reranking and extraction over HTTP."""

__version__ = "0.3.1"
