"""A checkpoint under several protocols at once: the work of ``neupronet evaluate``."""
