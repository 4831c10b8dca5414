"""Speed and memory beside the peers, as ratios of one run: `python -m bench`, `python -m bench --quick`.

Rounds are interleaved, so that what else the machine does falls on both sides; figures are medians. Nothing
here is a test: no duration passes or fails.
"""
