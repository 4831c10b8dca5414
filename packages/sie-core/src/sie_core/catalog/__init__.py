"""Models as data: specs, what a snapshot's own files say, the catalog of them all and how it is followed."""
