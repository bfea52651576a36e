"""One training: its folder, log, pictures, end and card."""
