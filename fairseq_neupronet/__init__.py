"""NeuProNet: neural profiling networks for sound classification, as a fairseq plugin.

Load it with ``--user-dir`` / ``common.user_dir``; nothing heavy is imported here.
"""

__version__ = "0.1.0"


def load(path, **options):
    """A trained model from its checkpoint, an ensemble from a list of checkpoints.

    See :func:`fairseq_neupronet.inference.model.load`.
    """
    from fairseq_neupronet.inference.model import load

    return load(path, **options)
