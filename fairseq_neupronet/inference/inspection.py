"""All there is to show of one window of a sound."""

import itertools

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.inference.classifier import Classifier
from fairseq_neupronet.inference.clips import Windows
from fairseq_neupronet.inference.grouping import attention
from fairseq_neupronet.inference.hearing import Sound, make_clip, name_of, stream_sound
from fairseq_neupronet.inference.picture import Heard
from fairseq_neupronet.profiles.bank import Bank


def inspect_window(
    classifier: Classifier,
    sound: Sound,
    windows: Windows,
    number: int,
    profile: str | None,
    bank: Bank | None,
    sample_rate: int | None,
) -> Heard:
    """Classify one window, and keep what it was classified by.

    Args:
        classifier: the model's.
        sound: a file or an array.
        windows: how it is cut.
        number: which window, from 1.
        profile: its profile in the bank; None hears it alone.
        bank: holds the profile.
        sample_rate: of an array, in Hz; None where it has the recipe's.

    Raises:
        InputError: a sound that cannot be read, or without so many windows.
    """
    checkpoint, name = classifier.checkpoint, name_of(sound, 0)
    blocks = stream_sound(checkpoint, sound, 0, sample_rate)
    for place, waveform in itertools.islice(windows.cut(blocks), max(0, number - 1), max(0, number)):
        clip = make_clip(checkpoint, 0, place, waveform)
        spectrogram = clip.spectrogram
        classifier.classify([clip], [profile], bank)
        weights = None
        if classifier.pools and profile is not None:
            weights = attention(classifier.network, clip.clip, clip.profile, bank[profile].embeddings)
        probabilities = clip.logits.softmax(dim=0).numpy()
        title = f"{name}  ·  {checkpoint.classes[int(probabilities.argmax())]}"
        return Heard(
            title if profile is None else f"{title}  ·  profile {profile}",
            clip.start,
            waveform.numpy(),
            spectrogram,
            checkpoint.recipe,
            checkpoint.classes,
            probabilities,
            None if weights is None else weights.numpy(),
        )
    raise InputError(f"{name}: has no window {number}; give a lower number, from 1 up")
