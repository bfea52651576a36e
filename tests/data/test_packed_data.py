"""A data folder whose features lie in uncompressed zips, through fairseq's own commands."""

import shutil
import zipfile

import pytest
import tiny


@pytest.fixture
def packed(corpus, tmp_path):
    """The tiny corpus, packed by zipfile alone, the members in another order than the clips."""
    folder = tmp_path / "packed"
    shutil.copytree(corpus, folder)
    for split in tiny.CLIPS:
        root, *rows = (folder / f"{split}.tsv").read_text().splitlines()
        cells = [row.split("\t") for row in rows]
        with zipfile.ZipFile(folder / "features" / f"{split}.zip", "w") as contents:
            for path, *_ in sorted(cells):
                contents.write(folder / "features" / path, path)
        places = {
            entry.filename: f"{split}.zip:{entry.header_offset + 30 + len(entry.filename)}:{entry.file_size}"
            for entry in zipfile.ZipFile(folder / "features" / f"{split}.zip").infolist()
        }
        lines = ["\t".join([places[path], *rest]) for path, *rest in cells]
        (folder / f"{split}.tsv").write_text("\n".join([root, *lines]) + "\n")
    for path in (folder / "features").glob("*.npy"):
        path.unlink()
    return folder


def test_predictions_are_those_of_loose_features_and_name_the_clips(packed, place, checkpoint, tmp_path):
    for data, name in ((place / "data", "loose"), (packed, "packed")):
        tiny.fairseq_validate(checkpoint, data, "--results-path", tmp_path / name)
    predictions = [(tmp_path / name / "predictions.tsv").read_text() for name in ("loose", "packed")]
    assert predictions[0] == predictions[1]
    assert "\ntest0.npy\t" in predictions[1]


def test_enrolment_draws_the_same_clips_and_normalises_them_alike(packed, corpus):
    heard = []
    for data in (corpus, packed):
        task = tiny.build_task(data, profile_normalize=True, profiling=True, protocol="enrol-2")
        heard.append([(batch["id"].tolist(), batch["net_input"]["source"]) for batch in tiny.batches(task, "test")])
    for (ids, source), (packed_ids, packed_source) in zip(*heard, strict=True):
        assert ids == packed_ids
        assert source.equal(packed_source)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_training_are_those_of_loose_features(packed, corpus, workers):
    drawn = []
    for data in (corpus, packed):
        task = tiny.build_task(data, specaug=True, profiling=True, max_sample_size=30)
        batches = tiny.batches(task, "train", num_workers=workers)
        drawn.append([(batch["id"].tolist(), batch["net_input"]["source"]) for batch in batches])
    for (ids, source), (packed_ids, packed_source) in zip(*drawn, strict=True):
        assert ids == packed_ids
        assert source.equal(packed_source)


def test_a_training_refuses_a_zip_that_is_cut_off_before_it_begins(packed, tmp_path):
    path = packed / "features" / "valid.zip"
    path.write_bytes(path.read_bytes()[:20_000])
    refused = tiny.train("finetuning", "vocalsound", f"task.data={packed}", cwd=tmp_path)
    sentence = tiny.one_sentence(refused)
    assert f"{packed / 'valid.tsv'}:" in sentence and "such clips); run `neupronet prepare` again" in sentence
