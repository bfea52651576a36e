"""Official checkpoints made ours: safely read, converted option by option and parameter by parameter."""

# Kinds of official checkpoint: a classifier, NeuProNet or CNN_NPN, or a pretrained spectrogram wav2vec 2.0.
CLASSIFIER, EXTRACTOR = "classifier", "extractor"
