"""task.profile_normalize: mel bands normalised over a profile's clips, against loops over clips in numpy."""

import json
import shutil

import numpy as np
import pytest
import tiny
import torch

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.profiles.enrolment import enrol, path_keys
from fairseq_neupronet.profiles.normalization import BandNormalization, BandSums, OfDrawnClips


def normalizing(corpus, **options):
    return tiny.build_task(corpus, **{"profile_normalize": True, "profile_normalize_prior": 0.0} | options)


class Split:
    """A split's files, read by numpy alone."""

    def __init__(self, corpus, name):
        rows = [line.split("\t") for line in (corpus / f"{name}.tsv").read_text().splitlines()[1:]]
        self.paths, self.profiles = [row[0] for row in rows], np.array([row[3] for row in rows])
        self.clips = [np.load(corpus / "features" / path).astype(np.float64) for path in self.paths]

    def of_profile(self, clip):
        return np.flatnonzero(self.profiles == self.profiles[clip]).tolist()

    def normalized(self, clip, members, prior_frames=0.0, corpus=None):
        """Clip ``clip`` by the frames of ``members``, mixed with so many frames of the training split's moments."""
        frames = np.concatenate([self.clips[member] for member in members], axis=1)
        mean, variance = frames.mean(axis=1), frames.var(axis=1)
        if prior_frames:
            every = np.concatenate(Split(corpus, "train").clips, axis=1)
            share = prior_frames / (prior_frames + frames.shape[1])
            mixed = (1 - share) * mean + share * every.mean(axis=1)
            within = (1 - share) * variance + share * every.var(axis=1)
            variance = within + (1 - share) * (mean - mixed) ** 2 + share * (every.mean(axis=1) - mixed) ** 2
            mean = mixed
        return (self.clips[clip] - mean[:, None]) / np.sqrt(variance)[:, None]


def heard(task, split, batch_size=8, **options):
    """What the network gets: item → (batch's items, unpadded clip), padding checked."""
    found = {}
    for batch in tiny.batches(task, split, batch_size, **options):
        items = batch["id"].tolist()
        net_input = batch["net_input"]
        assert (net_input["source"].mT[net_input["padding_mask"]] == 0).all()
        for item, source, frames in zip(items, net_input["source"], net_input["frames"].tolist(), strict=True):
            found[item] = items, source[:, :frames].double().numpy()
    return found


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("prior", [0.0, 75.0])
def test_training_normalises_over_all_training_clips_of_the_profile(corpus, prior):
    split = Split(corpus, "train")
    for clip, (_, source) in heard(normalizing(corpus, profile_normalize_prior=prior), "train").items():
        close(source, split.normalized(clip, split.of_profile(clip), prior, corpus))


@pytest.mark.parametrize("prior", [0.0, 75.0])
@pytest.mark.parametrize("protocol", ["single", "full", "enrol-2", "batch", "batch-5"])
def test_evaluation_normalises_over_the_clips_of_the_protocols_group(corpus, protocol, prior):
    split = Split(corpus, "test")
    _, codes = np.unique(split.profiles, return_inverse=True)
    offsets, members = enrol(codes, path_keys(split.paths), 2, seed=1)
    task = normalizing(corpus, protocol=protocol, profile_normalize_prior=prior)
    found = heard(task, "test", batch_size=7)
    assert sorted(found) == list(range(tiny.CLIPS["test"]))
    for clip, (batch, source) in found.items():
        group = {
            "single": [clip],
            "full": split.of_profile(clip),
            "enrol-2": members[offsets[clip] : offsets[clip + 1]].tolist(),
        }.get(protocol, [other for other in batch if split.profiles[other] == split.profiles[clip]])
        close(source, split.normalized(clip, group, prior, corpus))
        assert len(batch) <= {"batch-5": 5}.get(protocol, 7)


def test_under_enrolment_the_enrolled_are_normalised_by_themselves_and_the_clip_by_them_and_itself(corpus):
    split = Split(corpus, "test")
    _, codes = np.unique(split.profiles, return_inverse=True)
    offsets, members = enrol(codes, path_keys(split.paths), 2, seed=1)
    found = heard(normalizing(corpus, protocol="enrol-2", profiling=True), "test")
    assert sorted(found) == list(range(len(members)))
    for clip in range(len(split.clips)):
        start, end = offsets[clip : clip + 2]
        close(found[start][1], split.normalized(clip, members[start:end]))
        for item in range(start + 1, end):
            close(found[item][1], split.normalized(members[item], members[start + 1 : end]))


def test_statistics_are_those_of_the_clips_as_they_are_heard(corpus):
    """Cut to their first frames, and each of zero mean and unit variance already."""
    task = normalizing(corpus, max_sample_size=30, normalize=True, protocol="full")
    split = Split(corpus, "test")
    split.clips = [clip[:, :30] for clip in split.clips]
    split.clips = [(clip - clip.mean()) / clip.std() for clip in split.clips]
    for clip, (_, source) in heard(task, "test").items():
        close(source, split.normalized(clip, split.of_profile(clip)))


def test_a_band_that_never_moves_is_zero(own_corpus):
    for path in (own_corpus / "features").glob("*.npy"):
        clip = np.load(path)
        clip[3] = -80.25
        np.save(path, clip)
    for protocol in ("single", "full"):
        for _, source in heard(normalizing(own_corpus, protocol=protocol), "test").values():
            assert np.isfinite(source).all() and np.abs(source[3]).max() < 1e-3


def test_augmentation_comes_after_it(corpus):
    augmented = normalizing(corpus, specaug=True, frequency_mask=4, time_mask=9, time_roll=5)
    split = Split(corpus, "train")
    for batch in tiny.batches(augmented, "train"):
        data = augmented.dataset("train")
        lengths = batch["net_input"]["frames"]
        padded = np.zeros(batch["net_input"]["source"].shape, np.float32)
        for place, clip in enumerate(batch["id"].tolist()):
            padded[place, :, : lengths[place]] = split.normalized(clip, split.of_profile(clip))
        draws = data._draws(data.rows[batch["id"].numpy()])[:, 1:]
        expected = data.options.augment(torch.from_numpy(padded), lengths, draws)
        torch.testing.assert_close(batch["net_input"]["source"], expected, atol=2e-5, rtol=0)


# ---- a random number of others, in training ------------------------------------------------------------------------


def drawn(profile, n_epochs, seed=1):
    sums = BandSums.of_clips((np.full((1, 4), float(clip)) for clip in range(len(profile))), len(profile), 1)
    statistics = OfDrawnClips(sums, profile, BandNormalization(sums.overall(), 0.0), seed)
    items = np.arange(len(profile))
    for epoch in range(n_epochs):
        offsets, members = statistics.members(items, epoch)
        yield [part.tolist() for part in np.split(members, offsets[1:-1])]


def test_what_is_drawn_is_the_clip_and_distinct_others_of_its_profile():
    profile = np.random.default_rng(0).integers(0, 4, 60)
    for lists in drawn(profile, 20):
        for clip, (own, *others) in enumerate(lists):
            assert own == clip and clip not in others and len(set(others)) == len(others)
            assert set(profile[others]) <= {profile[clip]}


def test_the_number_drawn_is_log_uniform_and_every_other_is_drawn_equally_often():
    counts, numbers = np.zeros(12), np.zeros(12)
    for lists in drawn(np.zeros(12, np.int64), 3000):
        numbers[len(lists[0]) - 1] += 1
        counts[lists[0][1:]] += 1
    expected = np.diff(np.log(np.arange(1, 14))) / np.log(13)
    np.testing.assert_allclose(numbers / 3000, expected, atol=0.03)
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:] / counts.sum(), 1 / 11, atol=0.01)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_draws_depend_on_seed_epoch_and_clip_only(corpus, workers):
    def sources(epoch, batch_size, num_workers=0):
        task = normalizing(corpus, profile_normalize_clips="random", profiling=True)
        return {
            clip: source
            for clip, (_, source) in heard(task, "train", batch_size, epoch=epoch, num_workers=num_workers).items()
        }

    first, other = sources(2, 8), sources(2, 5, workers)
    for clip, source in first.items():
        np.testing.assert_allclose(other[clip], source, atol=1e-6)
    later = sources(3, 5, workers)
    assert sum(np.abs(later[clip] - source).max() > 1e-3 for clip, source in first.items()) > 20


def test_random_training_is_of_the_drawn_clips(corpus):
    task, split = normalizing(corpus, profile_normalize_clips="random"), Split(corpus, "train")
    found = heard(task, "train")
    data = task.dataset("train")
    offsets, members = data._statistics.members(np.arange(len(data)), data.epoch)
    sizes = set()
    for clip, (_, source) in found.items():
        group = members[offsets[clip] : offsets[clip + 1]]
        sizes.add(len(group))
        close(source, split.normalized(clip, group))
    assert len(sizes) > 2


# ---- checkpoints and refusals --------------------------------------------------------------------------------------


def test_a_checkpoint_knows_the_training_splits_statistics(corpus, own_corpus):
    state = json.loads(json.dumps(normalizing(corpus).state_dict()))
    frames = np.concatenate(Split(corpus, "train").clips, axis=1)
    np.testing.assert_allclose(state["band_statistics"]["mean"], frames.mean(axis=1))
    np.testing.assert_allclose(state["band_statistics"]["deviation"], frames.std(axis=1))
    expected = heard(normalizing(corpus, profile_normalize_prior=75.0), "test")
    for path in [*own_corpus.glob("train.*"), *(own_corpus / "features").glob("train*")]:
        path.unlink()
    task = normalizing(own_corpus, profile_normalize_prior=75.0)
    task.load_state_dict(state)
    for clip, (_, source) in heard(task, "test").items():
        np.testing.assert_array_equal(source, expected[clip][1])


def test_a_checkpoint_that_was_trained_without_it_is_refused(corpus):
    task = normalizing(corpus)
    task.load_state_dict(tiny.build_task(corpus).state_dict())
    with pytest.raises(InputError, match="task.profile_normalize=true: the checkpoint was trained without it"):
        tiny.batches(task, "test")


def test_profiles_are_needed(own_corpus):
    path = own_corpus / "train.tsv"
    root, *rows = path.read_text().splitlines()
    path.write_text("\n".join([root, *(row.rpartition("\t")[0] for row in rows)]) + "\n")
    with pytest.raises(InputError, match=r"train\.tsv:2: no profile column.*task\.profile_normalize=false"):
        normalizing(own_corpus).load_dataset("train")


@pytest.mark.parametrize("prior", [-1.0, float("nan"), float("inf")])
def test_a_prior_is_a_number_of_frames(corpus, prior):
    with pytest.raises(InputError, match="task.profile_normalize_prior="):
        normalizing(corpus, profile_normalize_prior=prior)


# ---- through the network -------------------------------------------------------------------------------------------


def logits(corpus, batch_size, workers=0, split="test", **options):
    task = tiny.build_task(corpus, **options)
    torch.manual_seed(3)
    model = tiny.build_model(task)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.mul_(4)
    model, criterion = model.eval(), tiny.build_criterion(task).eval()
    logs = [
        task.valid_step(batch, model, criterion)[2]
        for batch in tiny.batches(task, split, batch_size, num_workers=workers)
    ]
    with tiny.metrics.aggregate(new_root=True) as aggregator:
        task.reduce_metrics(logs, criterion)
        aggregator.get_smoothed_values()
    return task, model, task.evaluation.latest[1].logits


@pytest.mark.parametrize(
    "options",
    [
        {"profiling": True},
        {"profiling": True, "profile_normalize": True},
        {"profile_normalize": True},
    ],
    ids=["profiles", "both", "cmvn"],
)
@pytest.mark.parametrize("protocol", ["full", "enrol-3"])
def test_figures_are_the_same_at_any_batch_size_and_number_of_workers(corpus, protocol, options):
    first = logits(corpus, 1, protocol=protocol, **options)[2].softmax(1)
    for batch_size, workers in ((7, 0), (64, 1), (512, 2), (7, 2)):
        found = logits(corpus, batch_size, workers, protocol=protocol, **options)[2].softmax(1)
        torch.testing.assert_close(found, first, atol=1e-6, rtol=0)
    assert first.std(dim=0).max() > 1e-4


@pytest.mark.parametrize("normalize", [False, True])
def test_enrolment_equals_a_loop_over_clips_and_their_groups(corpus, normalize):
    options = {"protocol": "enrol-3", "profiling": True, "profile_normalize": normalize, "protocol_seed": 5}
    task, model, found = logits(corpus, 8, profile_normalize_prior=0.0, **options)
    split, frames = Split(corpus, "test"), tiny.FRAMES[1]
    offsets, members = enrol(np.unique(split.profiles, return_inverse=True)[1], path_keys(split.paths), 3, seed=5)
    with torch.no_grad():
        for clip in range(len(split.clips)):
            group = members[offsets[clip] : offsets[clip + 1]]
            embeddings = []
            for member in group:
                known = group if member == clip else group[1:]
                sound = split.normalized(member, known) if normalize else split.clips[member]
                source = torch.zeros(1, tiny.N_MELS, frames)
                source[0, :, : sound.shape[1]] = torch.from_numpy(sound)
                padding = torch.arange(frames)[None] >= sound.shape[1]
                embeddings.append([embedding[0] for embedding in model.embed(source, padding)])
            own, profiles = embeddings[0][0], torch.stack([profile for _, profile in embeddings])
            pooled = torch.softmax(profiles @ own, dim=0) @ profiles
            expected = model.head(torch.cat([own, pooled])[None])[0]
            torch.testing.assert_close(found[clip], expected, atol=1e-4, rtol=1e-4)
    assert task.evaluation.latest[1].n_short == sum(np.diff(offsets) < 4)


def test_recordings_beside_the_manifest_keep_cuts_apart(own_corpus):
    split = Split(own_corpus, "test")
    recording = [f"r{number % 4}" for number in range(len(split.clips))]
    (own_corpus / "test.recording").write_text("".join(f"{name}\n" for name in recording))
    task = tiny.build_task(own_corpus, profiling=True, protocol="enrol-9")
    task.load_dataset("test")
    offsets, members = task.dataset("test").grouping.enrolment
    for clip in range(len(split.clips)):
        wanted = [other for other in split.of_profile(clip) if recording[other] != recording[clip]]
        assert sorted(members[offsets[clip] + 1 : offsets[clip + 1]]) == wanted
    (own_corpus / "test.recording").write_text("r1\n")
    with pytest.raises(InputError, match=r"test\.recording: 1 recordings for the 22 clips"):
        task.load_dataset("test")


def test_labels_sway_no_draw(corpus, own_corpus):
    (own_corpus / "test.label").write_text("cough\n" * tiny.CLIPS["test"])
    for data in (corpus, own_corpus):
        task = tiny.build_task(data, profiling=True, protocol="enrol-2")
        task.load_dataset("test")
        members = task.dataset("test").grouping.enrolment.members
        if data is corpus:
            expected = members
    np.testing.assert_array_equal(members, expected)


@pytest.mark.parametrize("min_sample_size", [None, 35])
def test_batches_of_n_are_the_official_ones_whatever_the_batch_size(corpus, min_sample_size):
    frames = np.array([clip.shape[1] for clip in Split(corpus, "test").clips])
    kept = np.flatnonzero(frames >= (min_sample_size or 0))
    order = sorted(range(len(kept)), key=lambda item: -frames[kept[item]])
    wanted = [order[start : start + 5] for start in range(0, len(order), 5)]
    for batch_size in (1, 8):
        task = tiny.build_task(corpus, protocol="batch-5", padding="batch", min_sample_size=min_sample_size)
        batches = tiny.batches(task, "test", batch_size)
        assert [batch["id"].tolist() for batch in batches] == wanted
        longest = [batch["net_input"]["source"].shape[2] for batch in batches]
        assert longest == [frames[kept[batch[0]]] for batch in wanted]


@pytest.mark.slow
def test_it_trains_in_bfloat16_with_profile_batches_and_workers(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "data")
    options = [
        "task.profiling=True",
        "task.profile_normalize=true",
        "task.profile_normalize_clips=random",
        "task.bfloat16=true",
        "task.profile_batches=true",
        "task.specaug=true",
        "task.protocol=enrol-2",
        "dataset.num_workers=2",
    ]
    trained = tiny.train("finetuning", "vocalsound", "task.data=data", "hydra.run.dir=run", *options, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "protocol enrol-2" in trained.stdout or '"valid_protocol": "enrol-2"' in trained.stdout
    state = torch.load(tmp_path / "run" / "checkpoints" / "checkpoint_last.pt", weights_only=True)
    assert len(state["task_state"]["band_statistics"]["mean"]) == tiny.N_MELS


def test_a_band_that_hardly_moves_in_a_group_is_divided_by_a_hundredth_of_the_splits_deviation():
    rng = np.random.default_rng(0)
    clips = [np.stack([rng.normal(size=50), np.full(50, 3.0)]) for _ in range(3)]
    clips.append(np.stack([np.r_[np.zeros(49), 1e-3], np.full(50, 3.0)]))
    sums = BandSums.of_clips(clips, 4, 2)
    whole, deviation = sums.overall(), np.concatenate(clips, axis=1)[0].std()
    np.testing.assert_allclose(whole.deviation, [deviation, 1.0])
    found = BandNormalization(whole, 0.0).statistics(sums).deviation
    np.testing.assert_allclose(found[3], [0.01 * deviation, 0.01])
    np.testing.assert_allclose(found[0, 0], clips[0][0].std())


def test_of_training_clips_with_random_enrolments_evaluation_hears_all_of_the_profile(corpus):
    split, task = Split(corpus, "train"), normalizing(corpus, profile_normalize_clips="random")
    task.load_dataset("train")
    data = task.dataset("train").for_evaluation()
    for clip in range(0, len(data), 5):
        expected = split.normalized(clip, split.of_profile(clip))
        found = tiny.collated(data, clip)["net_input"]["source"][0, :, : expected.shape[1]]
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_another_seed_draws_other_clips():
    profile = np.zeros(12, np.int64)
    (one,), (other,) = (list(drawn(profile, 1, seed)) for seed in (1, 2))
    assert sum(ours == theirs for ours, theirs in zip(one, other, strict=True)) < 6
