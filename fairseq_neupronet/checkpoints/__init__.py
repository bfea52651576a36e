"""Files that hold weights: read as plain data, written whole, and what a training starts from."""
