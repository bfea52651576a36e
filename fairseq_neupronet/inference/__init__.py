"""A trained model in use: labels for sound, profiles enrolled from a few clips. Nothing here imports fairseq."""
