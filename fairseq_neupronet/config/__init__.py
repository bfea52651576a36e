"""Every option once: type, default, help and choices. Importing it loads neither torch nor fairseq."""
