"""What the page does with uploads, against the model's own methods; its limits; the command's refusals."""

import asyncio
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import spoken
import tiny

import fairseq_neupronet
from fairseq_neupronet.cli import main
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.serving.server import Guard
from fairseq_neupronet.serving.session import MEGABYTE, Limits, Session


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return spoken.write_corpus(tmp_path_factory.mktemp("spoken"))


@pytest.fixture(scope="module")
def paths(sounds):
    """Checkpoints of a model with profiles and of one without."""
    made = {}
    for name, profiling in (("profiles", True), ("base", False)):
        task, network, config = spoken.build(sounds / "data", profiling=profiling)
        made[name] = spoken.save(sounds / f"{name}.pt", task, network, config)
    return made


@pytest.fixture
def session(paths):
    return Session(fairseq_neupronet.load(paths["profiles"]), Limits(seconds=2, megabytes=0.5))


@pytest.fixture
def upload(tmp_path):
    """A copy of a file, as an upload is."""

    def copy(source) -> Path:
        (tmp_path / "uploads").mkdir(exist_ok=True)
        return Path(shutil.copy(source, tmp_path / "uploads"))

    return copy


def refused(session: Session, path: Path) -> str:
    """The sentence, which names the file without its folder; the file is gone."""
    with pytest.raises(InputError) as caught:
        session.take(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path.name}: ") and "\n" not in sentence
    assert str(path.parent) not in sentence and not path.exists()
    return sentence


# ---- answers -------------------------------------------------------------------------------------------------------


def test_a_clip_is_labelled_as_predict_labels_its_file(session, paths, sounds, upload):
    model, files = fairseq_neupronet.load(paths["profiles"]), spoken.files_of_test(sounds)
    path = upload(files[5])
    recording = session.take(path)
    assert not path.exists()
    answer = session.answer(recording)
    np.testing.assert_allclose(answer.prediction.logits, model.predict(files[5])[0].logits, atol=1e-5)
    assert answer.alone is None and recording.name == "test5.wav"
    assert answer.inspection.title.startswith("test5.wav") and answer.inspection.attention is None
    np.testing.assert_allclose(answer.inspection.waveform, soundfile.read(files[5])[0], atol=1e-6)


def test_a_profile_is_enrolled_used_and_forgotten_as_the_models_own(session, paths, sounds, upload):
    model, files = fairseq_neupronet.load(paths["profiles"]), spoken.files_of_test(sounds)
    model.enrol("ann", files[:3])
    assert session.enrol("ann", session.take_all([upload(file) for file in files[:2]])) == 2
    assert session.enrol("ann", [session.take(upload(files[2]))]) == 1
    assert session.profiles == {"ann": 3}
    answer = session.answer(session.take(upload(files[5])), "ann")
    np.testing.assert_allclose(answer.prediction.logits, model.predict(files[5], "ann")[0].logits, atol=1e-5)
    np.testing.assert_allclose(answer.alone.logits, model.predict(files[5])[0].logits, atol=1e-5)
    assert np.abs(answer.alone.logits - answer.prediction.logits).max() > 1e-3 and len(answer.inspection.attention) == 4
    session.forget("ann")
    assert session.profiles == {}
    with pytest.raises(InputError, match="'ann' is not enrolled"):
        session.answer(session.take(upload(files[5])), "ann")


def test_a_long_clip_is_shown_window_by_window(session, tmp_path):
    soundfile.write(tmp_path / "long.wav", spoken.sound(np.random.default_rng(0), 3, 1.5), spoken.RATE)
    recording = session.take(tmp_path / "long.wav")
    answer = session.answer(recording, window=2)
    assert len(answer.prediction.times) == 3
    assert answer.inspection.start == pytest.approx(answer.prediction.times[1][0])
    np.testing.assert_allclose(answer.inspection.probabilities, answer.prediction.window_probabilities[1], atol=1e-5)


def test_profiles_are_saved_where_a_bank_is_named_only(paths, sounds, upload, tmp_path):
    limits, bank = Limits(2, 0.5), tmp_path / "bank.npz"
    kept = Session(fairseq_neupronet.load(paths["profiles"]), limits, bank)
    kept.enrol("ann", [kept.take(upload(spoken.files_of_test(sounds)[0]))])
    again = Session(fairseq_neupronet.load(paths["profiles"]), limits, bank)
    assert again.profiles == {"ann": 1}
    again.forget("ann")
    assert Session(fairseq_neupronet.load(paths["profiles"]), limits, bank).profiles == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bank.npz", "uploads"]


def test_a_model_without_profiles_says_why(paths):
    session = Session(fairseq_neupronet.load(paths["base"]), Limits(2, 0.5))
    assert "trained without profiles" in session.why_no_profiles and session.profiles == {}
    with pytest.raises(InputError, match="trained without profiles"):
        Session(fairseq_neupronet.load(paths["base"]), Limits(2, 0.5), "bank.npz")


def test_what_cannot_be_enrolled_is_explained_and_every_upload_removed(session, sounds, upload, tmp_path):
    (tmp_path / "text.wav").write_text("not a sound")
    good = upload(spoken.files_of_test(sounds)[0])
    with pytest.raises(InputError, match="^text.wav: does not decode"):
        session.take_all([tmp_path / "text.wav", good])
    assert not good.exists() and not (tmp_path / "text.wav").exists()
    with pytest.raises(InputError, match="enrol one clip at least"):
        session.enrol("ann", [])
    recording = session.take(upload(spoken.files_of_test(sounds)[0]))
    with pytest.raises(InputError, match="give a name"):
        session.enrol(" ", [recording])
    assert session.profiles == {}


# ---- limits --------------------------------------------------------------------------------------------------------


def test_what_is_no_sound_is_refused(session, tmp_path):
    (tmp_path / "text.wav").write_text("not a sound")
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), 16000)
    sentences = [refused(session, tmp_path / name) for name in ("text.wav", "empty.wav", "nothing.wav")]
    for words, sentence in zip(("does not decode", "does not decode", "0 samples"), sentences, strict=True):
        assert words in sentence


def test_too_large_a_file_is_refused_before_it_is_opened(session, tmp_path, monkeypatch):
    monkeypatch.setattr(soundfile, "info", lambda *_: pytest.fail("opened"))
    (tmp_path / "big.wav").write_bytes(b"RIFF" + bytes(MEGABYTE))
    assert "has 1.0 MB, and this page takes 0.5" in refused(session, tmp_path / "big.wav")


def test_too_long_a_file_is_refused_before_it_is_decoded(session, tmp_path, monkeypatch):
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("decoded"))
    soundfile.write(tmp_path / "long.flac", np.zeros(3 * 16000), 16000)
    assert "longer than the 2 seconds" in refused(session, tmp_path / "long.flac")
    soundfile.write(tmp_path / "claims.wav", np.zeros(16000), 16000, subtype="PCM_16")
    _change(tmp_path / "claims.wav", 24, struct.pack("<I", 100))  # 160 s at the rate that the header has now
    assert "longer than the 2 seconds" in refused(session, tmp_path / "claims.wav")


def test_a_header_that_claims_less_than_there_is_does_not_help(session, tmp_path, monkeypatch):
    """Decoding ends where the sound is too long, whatever a header said."""
    soundfile.write(tmp_path / "long.wav", np.zeros(200_000), 16000, subtype="PCM_U8")
    decoded = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda *given, **options: decoded.append(read(*given, **options)) or decoded[-1]
    )
    monkeypatch.setattr(soundfile, "info", lambda _: type("Info", (), {"frames": 16000, "samplerate": 16000}))
    assert "longer than the 2 seconds" in refused(session, tmp_path / "long.wav")
    assert len(decoded) == 1 and len(decoded[0]) < 200_000


@pytest.mark.parametrize("claimed", [0xFFFFFFFF, 0x7FFFFFF0])
def test_a_wav_header_that_claims_more_than_there_is_costs_nothing(session, tmp_path, claimed):
    path = tmp_path / "lies.wav"
    soundfile.write(path, np.zeros(16000), 16000, subtype="PCM_16")
    place = path.read_bytes().index(b"data") + 4
    _change(path, 4, struct.pack("<I", claimed))
    _change(path, place, struct.pack("<I", claimed))
    assert session.take(path).seconds == pytest.approx(1)


def _change(path: Path, place: int, written: bytes) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + written + whole[place + len(written) :])


@pytest.mark.parametrize(("seconds", "megabytes"), [(0, 1), (1, -1), (float("nan"), 1), (float("inf"), 1)])
def test_limits_that_make_no_sense_are_refused(seconds, megabytes):
    with pytest.raises(InputError, match="give a number above 0"):
        Limits(seconds, megabytes)


# ---- what the server lets through ----------------------------------------------------------------------------------


def status(method: str, path: str, hosts=frozenset({"localhost"}), **headers: str) -> int:
    """Of the guard's answer before an application that says 200."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Referrer-Policy", b"any")]})
        await send({"type": "http.response.body", "body": b""})

    async def keep(message):
        sent.append(message)

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": given}
    asyncio.run(Guard(app, hosts, megabytes=1)(scope, None, keep))
    headers = [name.lower() for name, _ in sent[0]["headers"]]
    assert headers.count(b"content-security-policy") == headers.count(b"referrer-policy") == 1
    return sent[0]["status"]


@pytest.mark.parametrize(
    ("expected", "method", "path", "headers"),
    [
        (200, "GET", "/", {"host": "localhost:7860"}),
        (200, "GET", "/assets/a.js", {"host": "localhost:7860"}),
        (200, "POST", "/gradio_api/upload", {"host": "localhost", "content_length": "1000000"}),
        (
            200,
            "POST",
            "/gradio_api/queue/join",
            {"host": "localhost:1", "origin": "http://localhost:1", "content_length": "9"},
        ),
        (403, "GET", "/", {"host": "evil.example:7860"}),
        (403, "GET", "/", {"host": "["}),
        (403, "GET", "/", {}),
        (
            403,
            "POST",
            "/gradio_api/upload",
            {"host": "localhost", "origin": "http://evil.example", "content_length": "9"},
        ),
        (411, "POST", "/gradio_api/upload", {"host": "localhost"}),
        (413, "POST", "/gradio_api/upload", {"host": "localhost", "content_length": "1200000"}),
        (404, "GET", "/gradio_api/file=/etc/passwd", {"host": "localhost"}),
        (404, "GET", "/gradio_api/proxy=http://example.org", {"host": "localhost"}),
        (404, "GET", "/gradio_api/info", {"host": "localhost"}),
        (404, "GET", "/gradio_api/upload", {"host": "localhost"}),
        (404, "PUT", "/", {"host": "localhost"}),
    ],
)
def test_only_what_the_page_needs_is_answered(expected, method, path, headers):
    assert status(method, path, **headers) == expected


def test_a_host_of_ones_own_choice_may_have_any_name():
    assert status("GET", "/", None, host="machine.example:7860") == 200


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command_refuses_in_a_sentence(paths, capsys, tmp_path, monkeypatch):
    pytest.importorskip("gradio")
    (tmp_path / "text.pt").write_text("hello")
    good = str(paths["profiles"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, words in (
            (["--path", good, "--port", port], f"--port {port}: cannot be listened at"),
            (["--path", good, "--port", "99999"], "--port 99999"),
            (["--path", good, "--host", "203.0.113.1", "--port", "0"], "--host 203.0.113.1"),
            (["--path", str(tmp_path / "text.pt"), "--port", "0"], "text.pt"),
            (["--path", str(paths["base"]), "--port", "0", "--bank", "b.npz"], "trained without profiles"),
            (["--path", good, "--port", "0", "--max-seconds", "0"], "--max-seconds 0"),
        ):
            assert main(["serve", *arguments]) == 1
            error = capsys.readouterr().err
            assert error.startswith("neupronet: error: ") and words in error and error.count("\n") == 1
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["serve", "--path", good]) == 1
    assert "pip install 'fairseq-neupronet[serve]'" in capsys.readouterr().err


def test_nothing_of_gradio_is_imported_before_it_is_needed():
    code = (
        "import sys, fairseq_neupronet.cli, fairseq_neupronet.serving.session\n"
        "print([name for name in ('gradio', 'fastapi', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=tiny.environment())
    assert done.stdout.strip() == "[]", done.stderr
