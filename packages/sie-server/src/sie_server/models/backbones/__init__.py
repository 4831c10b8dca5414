"""Tokens to hidden states, one file per architecture, written once against `ops.protocol`."""
