"""What ``neupronet show`` draws: the picture, where bands lie, and how much each enrolled clip counts."""

import librosa
import numpy as np
import pytest
import spoken
import tiny
import torch
from torchaudio.compliance.kaldi import get_mel_banks

import fairseq_neupronet
from fairseq_neupronet.audio.features import band_centres
from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.cli import main
from fairseq_neupronet.networks.in_groups import attention
from fairseq_neupronet.networks.pooling import ProfilePooling


class Network:
    def __init__(self, *arguments, **options):
        self.pooling = ProfilePooling(*arguments, **options)


@pytest.mark.parametrize("sign", ["similarity", "distance"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cosine", "dot", "cosine+dot"])
def test_the_pooled_embedding_is_the_sum_by_the_weights(pooling, normalize, sign):
    torch.manual_seed(0)
    network = Network(pooling, temperature=0.7, cosine_sign=sign, normalize=normalize)
    clip, members = 3 * torch.randn(6), torch.randn(4, 6)
    weights = attention(network, clip, members[0], members[1:])
    _, pooled = network.pooling(clip[None], members, torch.ones(1, 4, dtype=torch.bool))
    expected = weights @ members
    if network.pooling.normalize:
        expected = expected / expected.norm()
    torch.testing.assert_close(expected, pooled[0], atol=1e-4, rtol=1e-3)


def test_dot_weights_are_the_softmax_of_the_products():
    torch.manual_seed(0)
    clip, members = torch.randn(6), torch.randn(4, 6)
    weights = attention(Network("dot", temperature=2.0), clip, members[0], members[1:])
    products = np.array([float(clip @ member) / 2.0 for member in members])
    np.testing.assert_allclose(weights, np.exp(products) / np.exp(products).sum(), rtol=1e-3)


@pytest.mark.parametrize("pooling", ["profile", "profile+dot", "profile+cosine+dot"])
def test_a_pooling_that_is_no_weighted_sum_has_no_weights(pooling):
    torch.manual_seed(0)
    assert attention(Network(pooling), torch.randn(6), torch.randn(6), torch.randn(3, 6)) is None


@pytest.mark.parametrize(("rate", "n_mels"), [(16000, 64), (22050, 128), (8000, 20)])
def test_band_centres_of_mel_db_are_librosas(rate, n_mels):
    recipe = FeatureRecipe.from_dict(tiny.RECIPE | {"sample_rate": rate, "n_mels": n_mels})
    expected = librosa.mel_frequencies(n_mels + 2, fmin=0, fmax=rate / 2)[1:-1]
    np.testing.assert_allclose(band_centres(recipe), expected, rtol=1e-9)


def test_band_centres_of_kaldi_are_where_its_triangles_peak():
    recipe = FeatureRecipe.from_dict(
        {
            "name": "k",
            "kind": "kaldi_fbank",
            "sample_rate": 16000,
            "hop_length": 160,
            "n_mels": 40,
            "frame_length_ms": 25,
            "mean": 0.0,
            "divisor": 1.0,
        }
    )
    n_fft = 1 << 16
    bank, _ = get_mel_banks(40, n_fft, 16000, 20.0, 0.0, 100.0, -500.0, 1.0)
    peaks = bank.argmax(dim=1).numpy() * 16000 / n_fft
    np.testing.assert_allclose(band_centres(recipe), peaks, atol=16000 / n_fft)


def test_show_writes_a_picture(tmp_path, capsys):
    image = pytest.importorskip("matplotlib.image")
    sounds = spoken.write_corpus(tmp_path)
    task, network, config = spoken.build(sounds / "data", profiling=True)
    path, files = spoken.save(tmp_path / "model.pt", task, network, config), spoken.files_of_test(sounds)
    out = tmp_path / "heard.png"
    assert not main(["show", files[0], "--path", str(path), "--out", str(out), "--profile-from", *files[1:4]])
    assert capsys.readouterr().out == f"{out}\n"
    picture = image.imread(out)
    assert picture.shape[:2] == (840, 1200) and len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 100
    heard = fairseq_neupronet.load(path).inspect(files[0])
    assert heard.attention is None and heard.spectrogram.shape[1] == 61
    assert main(["show", files[0], "--path", str(path), "--out", str(tmp_path / "a.xyz")]) == 1
    assert "'xyz' is no format of pictures" in capsys.readouterr().err and not (tmp_path / "a.xyz").exists()
