"""What a lock says to people before anything is carried: policy, bill, changes, reasons."""
