"""What a chart asks for: its images, whichever values are on, and the values that install it offline."""
