"""From admitted calls to batches on the device, and back: what runs when, on which thread, for whom."""
