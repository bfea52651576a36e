"""The engine on spectrograms: what it remembers adds up, and nothing of a result depends on batches or other groups."""

import numpy as np
import pytest
import torch
from torch import nn

from fairseq_neupronet.networks.adaptive_batch_norm import adapted_to_batch
from fairseq_neupronet.networks.fusion import build_fusion
from fairseq_neupronet.networks.in_groups import InGroups, classify_embedded
from fairseq_neupronet.networks.neupronet import NeuProNet
from fairseq_neupronet.networks.pooling import ProfilePooling
from fairseq_neupronet.profiles.batches import BatchMates
from fairseq_neupronet.profiles.enrolment import Enrolment
from fairseq_neupronet.profiles.groups import Grouping
from fairseq_neupronet.profiles.normalization import BandNormalization, BandStatistics
from fairseq_neupronet.profiles.profile import Needs

N_MELS, WIDTH = 6, 5
NEEDS = [(pooled, bands, norms) for pooled in (True, False) for bands in (True, False) for norms in (True, False)]


class Encoder(nn.Module):
    """A convolution with a batch norm, and the mean over all places."""

    masks = False

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH)

    def forward(self, source, padding_mask):
        return self.norm(self.convolution(source.unsqueeze(1))).relu().mean(dim=(2, 3))


def engine(pooled=True, bands=True, norms=True, **options) -> InGroups:
    torch.manual_seed(0)
    fusion = build_fusion("concat", WIDTH, None) if pooled else None
    head = nn.Linear(2 * WIDTH if pooled else WIDTH, 3)
    network = NeuProNet(
        Encoder(), head, Encoder() if pooled else None, ProfilePooling("dot") if pooled else None, fusion
    )
    network.bands_by_group, network.norms_by_group = bands, norms
    prior = BandStatistics(np.linspace(-1, 1, N_MELS), np.linspace(1, 2, N_MELS))
    return InGroups(
        network.double().eval(), BandNormalization(prior, 20.0) if bands else None, 2.0 if norms else None, **options
    )


@pytest.fixture
def clips():
    rng = np.random.default_rng(1)
    return [rng.normal(size=(N_MELS, frames)) + rng.normal() for frames in (9, 12, 9, 7, 12, 9, 9)]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("needs", NEEDS)
def test_a_batch_is_its_clips_one_by_one(clips, needs):
    in_groups = engine(*needs)
    profiles = [in_groups.remember(clips[:2]), None, in_groups.remember(clips[3:4])]
    of_clips = [profiles[number % 3] for number in range(len(clips))]
    found = in_groups.classify(clips, of_clips)
    for number, clip in enumerate(clips):
        close(found.logits[number : number + 1], in_groups.classify([clip], [of_clips[number]]).logits)
    alone = in_groups.classify(clips, [None] * len(clips))
    moved = (found.logits - alone.logits).abs().amax(dim=1) > 1e-6
    assert moved.tolist() == [any(needs) and profile is not None for profile in of_clips]
    assert in_groups.needs == Needs(*needs) and in_groups.needs.any == any(needs)


@pytest.mark.parametrize("needs", NEEDS)
def test_what_is_at_hand_together_does_not_depend_on_other_groups(clips, needs):
    in_groups = engine(*needs, fixed_frames=12)
    codes = np.array([4, 1, 4, 2, 1, 4, 3])
    found = in_groups.together(clips, codes, lambda: pytest.fail("no group is large"))
    gathered = in_groups.gather(iter(clips), batch_size=2)
    close(in_groups.together(gathered, codes, None).logits, found.logits)
    for code in np.unique(codes):
        members = np.flatnonzero(codes == code)
        group = in_groups.together([clips[member] for member in members], np.zeros(len(members)), None)
        close(found.logits[members], group.logits)
    only_pooled = needs == (True, False, False)
    if only_pooled or not any(needs):  # then it is the same whether clips are remembered or at hand
        others = [np.flatnonzero((codes == code) & (np.arange(7) != place)) for place, code in enumerate(codes)]
        remembered = [in_groups.remember([clips[n] for n in some]) if len(some) else None for some in others]
        close(in_groups.classify(clips, remembered).logits, found.logits)


@pytest.mark.parametrize("needs", NEEDS)
def test_what_is_remembered_adds_up_and_is_of_the_clips_by_themselves(clips, needs):
    in_groups = engine(*needs)
    one, other = in_groups.remember(clips[:3]), in_groups.remember(clips[3:])
    both = in_groups.nothing(WIDTH) + one + other
    assert (one.n_clips, other.n_clips, both.n_clips) == (3, 4, 7)
    assert both.embeddings.shape == (7, WIDTH if needs[0] else 0)
    frames = sum(clip.shape[1] for clip in clips)
    joined = np.concatenate(clips, axis=1)
    expected = [frames, *joined.sum(axis=1), *(joined**2).sum(axis=1)] if needs[1] else []
    np.testing.assert_allclose(both.bands, expected)
    assert both.norms.shape == (1 + 2 * WIDTH if needs[2] else 0,)
    assert not needs[2] or both.norms[0] == 7


def test_large_groups_are_remembered_in_parts_of_128_clips():
    in_groups, clips = engine(), list(np.random.default_rng(0).normal(size=(130, N_MELS, 8)))
    profile = in_groups.remember(clips)
    assert profile.n_clips == 130 and profile.norms[0] == 130 and np.isfinite(profile.norms).all()


def test_what_a_network_does_not_need_is_refused():
    network = engine(bands=False, norms=False).network
    with pytest.raises(ValueError, match="do not fit"):
        InGroups(network, adaptive_prior=2.0)


def test_pooling_in_chunks_is_pooling_at_once():
    torch.manual_seed(2)
    network = engine(bands=False, norms=False).network
    clip, profile, codes = torch.randn(2500, WIDTH).double(), torch.randn(2500, WIDTH).double(), np.arange(2500) % 7
    found = classify_embedded(network, clip, profile, Grouping.partition(codes))
    with torch.no_grad():
        expected = network.classify(clip, profile, None, torch.from_numpy(codes))
    close(found.logits, expected.logits)
    close(found.pooled, expected.pooled)
    nothing = classify_embedded(network, clip[:3], profile[:3], Grouping.partition(np.zeros(0, int)))
    assert nothing.logits.shape == (0, 3)


@pytest.mark.parametrize("n_enrolled", [2, 128, 130, 300])
@torch.no_grad()
def test_many_enrolled_clips_are_the_same_to_validation_and_to_what_is_remembered(n_enrolled):
    """A batch of evaluation holds a clip and all that are enrolled for it; a bank holds the sums of their parts."""
    clips = list(np.random.default_rng(2).normal(size=(n_enrolled + 2, N_MELS, 4)))
    in_groups = engine(pooled=False, bands=False)
    offsets = np.array([0, n_enrolled + 1, n_enrolled + 2])
    lists = Enrolment(offsets, np.array([0, *range(2, n_enrolled + 2), 1]))  # the second clip has none enrolled
    batch = {"together": BatchMates.of_lists(lists).of_batch(np.arange(n_enrolled + 2))}
    source = torch.from_numpy(np.stack([clips[member] for member in lists.members]))
    with adapted_to_batch(in_groups.network.backbone, batch, in_groups.adaptive_prior):
        logits = in_groups.network(source, torch.zeros(len(source), 4, dtype=torch.bool)).logits
    remembered = in_groups.remember(clips[2:])
    close(logits[[0, -1]], in_groups.classify(clips[:2], [remembered, None]).logits)
