"""The spectrogram wav2vec 2.0: convolutions over time, a transformer, and its contrastive task."""
