"""The page in headless Chromium: a clip, a profile, what it changes, and what is refused."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import spoken
import tiny

import fairseq_neupronet

pytestmark = pytest.mark.slow
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 120_000  # ms


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return spoken.write_corpus(tmp_path_factory.mktemp("spoken"))


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("gradio", reason="gradio is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH")
    with playwright.sync_playwright() as driver:
        microphone = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *microphone])
        yield browser
        browser.close()


@pytest.fixture
def serve(sounds, tmp_path):
    """Start the command on a model and get its address; at the end, Ctrl-C must end it cleanly."""
    started = []

    def start(profiling: bool, *options) -> tuple[str, Path]:
        task, network, config = spoken.build(sounds / "data", profiling=profiling)
        path = spoken.save(tmp_path / "model.pt", task, network, config)
        (tmp_path / "tmp").mkdir()
        command = [sys.executable, "-m", "fairseq_neupronet", "serve", "--path", path, "--port", "0", *options]
        process = subprocess.Popen(
            [*map(str, command)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=tiny.environment() | {"TMPDIR": str(tmp_path / "tmp")},
        )
        started.append(process)
        return process.stdout.readline().split()[0], path

    yield start
    for process in started:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0 and "Traceback" not in errors, errors
    assert not list((tmp_path / "tmp").iterdir())


@pytest.fixture
def open_page(browser):
    """Open an address; afterwards, no request may have gone to another host."""
    pages, asked = [], []

    def open_(address: str):
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_selector("#said")
        pages.append((page, urlsplit(address).netloc))
        return page

    yield open_
    for page, host in pages:
        page.close()
        others = [url for url in asked if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != host]
        assert len(asked) > 5 and not others


def give(page, place: str, *files) -> None:
    page.set_input_files(f"{place} input[type=file]", [str(file) for file in files])


def wait_for(page, place: str, words: str) -> str:
    page.wait_for_function(
        "([place, words]) => document.querySelector(place)?.innerText.includes(words)", arg=[place, words]
    )
    return page.inner_text(place)


def shown_probability(page, label: str) -> float:
    return float(re.search(rf"{label} (\d\.\d+)", page.inner_text("#said")).group(1))


def test_a_clip_is_labelled_alone_and_with_a_profile_that_is_enrolled_and_forgotten(serve, open_page, sounds, tmp_path):
    address, path = serve(True, "--bank", tmp_path / "bank.npz", "--max-megabytes", "1")
    files = spoken.files_of_test(sounds)
    page = open_page(address)

    give(page, "#clip", files[5])
    wait_for(page, "#said", "by itself")
    model = fairseq_neupronet.load(path)
    (alone,) = model.predict(files[5])
    assert shown_probability(page, alone.label) == pytest.approx(alone.probability, abs=6e-4)
    assert wait_for(page, "#probabilities", f"{alone.probability:.0%}").count("%") == len(model.classes)
    assert page.locator("#picture img").count() == 1

    page.fill("#name input, #name textarea", "ann <b>")
    give(page, "#files", *files[:3])
    wait_for(page, "#outcome", "ann <b>: 3 clips enrolled")
    page.click("#profile input")
    page.get_by_role("option", name="ann <b>").click()
    wait_for(page, "#said", "with profile ann <b>")
    model.load_bank(tmp_path / "bank.npz")
    (together,) = model.predict(files[5], "ann <b>")
    assert abs(together.probability - alone.probability) > 1e-3
    assert shown_probability(page, together.label) == pytest.approx(together.probability, abs=6e-4)
    assert f"By itself: {alone.label} {alone.probability:.3f}" in page.inner_text("#said")

    page.click("#enrol_clip")
    wait_for(page, "#outcome", "1 clip enrolled")
    page.reload()
    wait_for(page, "#known", "4")  # clips; a new page knows them, and holds no recording
    assert wait_for(page, "#said", "No clip yet")
    give(page, "#clip", files[5])
    wait_for(page, "#said", "by itself")
    page.fill("#name input, #name textarea", "ann <b>")
    page.click("#forget")
    wait_for(page, "#outcome", "forgotten")
    wait_for(page, "#said", "by itself")
    assert "No profile is enrolled" in page.inner_text("#known")

    (tmp_path / "text.wav").write_text("not a sound")
    give(page, "#clip", tmp_path / "text.wav")
    sentence = wait_for(page, "#said", "text.wav: does not decode as audio")
    assert "Traceback" not in page.inner_text("body") and str(tmp_path) not in sentence
    (tmp_path / "big.wav").write_bytes(bytes(2_000_000))
    give(page, "#clip", tmp_path / "big.wav")
    wait_for(page, "body", "exceed the maximum allowed size of 1")
    assert not [file for file in (tmp_path / "tmp").rglob("*") if file.is_file() and file.stat().st_size]


def test_a_clip_is_recorded(serve, open_page):
    address, _ = serve(True)
    page = open_page(address)
    page.click("#clip [data-testid=source-select] button:last-child")
    page.click("#clip button.record-button")
    page.wait_for_timeout(1500)
    page.click("#clip button.stop-button")
    wait_for(page, "#said", "by itself")


def test_a_model_without_profiles_shows_no_enrolment_and_says_why(serve, open_page, sounds):
    address, _ = serve(False)
    page = open_page(address)
    assert "trained without profiles" in page.inner_text("#no_profiles")
    assert not page.locator("#profile, #name, #files, #forget").count()
    give(page, "#clip", spoken.files_of_test(sounds)[0])
    wait_for(page, "#said", "by itself")
