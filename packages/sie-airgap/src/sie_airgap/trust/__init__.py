"""Who may say which lock is meant: signatures, the keys that count, and how these change.

A signature is a DSSE envelope over an in-toto statement about a lock. Which keys count, and how many of them
are needed, a root says, a document that is signed itself. The far side pins one root in `trust.json`; from
then on only locks signed as that root wants are taken, none older than the last one, and only roots
signed as the pinned one wants follow it. No clock is asked: nothing here expires.
"""
