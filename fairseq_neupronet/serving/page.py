"""The page's layout, in gradio: what stands where, and which button calls what of the session."""

import base64
import html
from collections.abc import Callable

import gradio

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.inference.picture import render
from fairseq_neupronet.serving.session import Answer, Recording, Session

TITLE = "NeuProNet"
CSS = """
.gradio-container {max-width: 1180px !important; margin: auto;}
.said {padding: .6em .9em; border-radius: 8px; background: var(--background-fill-secondary); line-height: 1.45;}
.said {overflow-wrap: anywhere;}
.said.wrong {background: #fdecea; color: #7a1a12; border-left: 4px solid #c0392b;}
.said b.label {font-size: 1.25em;}
.said audio {display: block; width: 100%; height: 36px; margin-top: .5em;}
.picture img {width: 100%; border-radius: 8px; background: white;}
.profiles, .profiles tr, .profiles td, .profiles th {border: none !important;}
.profiles td, .profiles th {padding: .15em 1.2em .15em 0 !important; text-align: left;}
footer {display: none !important;}
"""
_NOBODY = ""
_PAGES = 32  # whose recordings are kept at most
_CALL = {"api_visibility": "private", "show_progress": "minimal", "concurrency_limit": 1, "concurrency_id": "model"}
_STATE_SECONDS = 1800  # a recording is kept for as long, where its page is not closed


def make_page(session: Session) -> gradio.Blocks:
    """The page of a session; :func:`fairseq_neupronet.serving.server.serve` serves it."""
    with gradio.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, 300)) as page:
        page.state_session_capacity = _PAGES
        gradio.HTML(_introduction(session))
        recording = gradio.State(None, time_to_live=_STATE_SECONDS)
        with gradio.Row():
            with gradio.Column(scale=2):
                clip = gradio.Audio(
                    label="A clip: drop or record it",
                    sources=["upload", "microphone"],
                    type="filepath",
                    editable=False,
                    elem_id="clip",
                )
                if session.why_no_profiles:
                    gradio.HTML(_said(f"No profiles: {session.why_no_profiles}"), elem_id="no_profiles")
                    profile = gradio.State(_NOBODY)
                else:
                    profile = gradio.Dropdown(
                        _choices(session), value=_NOBODY, label="Whose clip is it?", elem_id="profile"
                    )
                    enrolment = _Enrolment(session)
            with gradio.Column(scale=3):
                said = gradio.HTML(_said("No clip yet."), elem_id="said")
                probabilities = gradio.Label(label="Class probabilities", num_top_classes=10, elem_id="probabilities")
                window = gradio.Slider(
                    1, 2, value=1, step=1, label="Window shown below", visible=False, elem_id="window"
                )
                picture = gradio.HTML(elem_classes="picture", elem_id="picture")
        results = [said, probabilities, window, picture]

        def answer(recording: Recording | None, name: str, number: int) -> list:
            if recording is None:
                return [_said("No clip yet."), None, gradio.Slider(visible=False), ""]
            try:
                found = session.answer(recording, name or None, int(number))
            except InputError as error:
                return [_said(str(error), wrong=True), None, gradio.Slider(visible=False), ""]
            n_windows = len(found.prediction.times)
            slider = gradio.Slider(
                1,
                max(2, n_windows),
                value=int(number),
                visible=n_windows > 1,
                label=f"Which of {n_windows} windows is shown below",
            )
            shown = dict(zip(found.prediction.classes, found.prediction.probabilities.tolist(), strict=True))
            return [_verdict(recording, found), shown, slider, _picture(found)]

        def take(path: str | None, name: str):
            if path is None:
                return [gradio.skip()] * 6
            try:
                recording = session.take(path)
            except InputError as error:
                return [None, None, _said(str(error), wrong=True), None, gradio.Slider(visible=False), ""]
            return [None, recording, *answer(recording, name, 1)]

        clip.input(take, [clip, profile], [clip, recording, *results], **_CALL)
        window.release(answer, [recording, profile, window], results, **_CALL)
        if not session.why_no_profiles:
            profile.input(answer, [recording, profile, window], results, **_CALL)
            page.load(enrolment.refresh, None, [enrolment.known, profile], **_CALL)
            enrolment.connect(
                recording, profile, lambda event: event.then(answer, [recording, profile, window], results, **_CALL)
            )
    return page


class _Enrolment:
    """The part of the page where profiles are made and forgotten."""

    def __init__(self, session: Session):
        self.session = session
        self.name = gradio.Textbox(label="Enrol a profile: its name", placeholder="anna", max_lines=1, elem_id="name")
        self.files = gradio.File(label="Drop its recordings here", file_count="multiple", height=150, elem_id="files")
        with gradio.Row():
            self.from_clip = gradio.Button("Or enrol the clip", size="md", elem_id="enrol_clip")
            self.forget = gradio.Button("Forget the name", size="md", elem_id="forget")
        self.outcome = gradio.HTML(elem_id="outcome")
        self.known = gradio.HTML(_profiles(session), elem_id="known")

    def connect(self, recording: gradio.State, profile: gradio.Dropdown, then_answer) -> None:
        """Let the buttons work; the clip is answered anew after each of them."""
        told = [self.outcome, self.known, profile]
        then_answer(self.from_clip.click(self._enrol_clip, [self.name, recording, profile], told, **_CALL))
        then_answer(
            self.files.upload(self._enrol_files, [self.name, self.files, profile], [self.files, *told], **_CALL)
        )
        then_answer(self.forget.click(self._forget, [self.name, profile], told, **_CALL))

    def refresh(self, chosen: str = _NOBODY) -> list:
        """The profiles of now, in the table and in the list that one is chosen from."""
        kept = chosen if chosen in self.session.profiles else _NOBODY
        return [_profiles(self.session), gradio.Dropdown(_choices(self.session), value=kept)]

    def _enrol_clip(self, name: str, recording: Recording | None, chosen: str) -> list:
        return self._told(lambda: self._enrol(name, [recording] if recording else []), chosen)

    def _enrol_files(self, name: str, paths: list[str] | None, chosen: str) -> list:
        return [None, *self._told(lambda: self._enrol(name, self.session.take_all(paths or [])), chosen)]

    def _forget(self, name: str, chosen: str) -> list:
        name = name.strip() or chosen

        def forget() -> str:
            self.session.forget(name)
            return f"{name}: forgotten."

        return self._told(forget, chosen)

    def _enrol(self, name: str, recordings: list[Recording]) -> str:
        name = name.strip()
        n_clips = self.session.enrol(name, recordings)
        return f"{name}: {n_clips} {'clip' if n_clips == 1 else 'clips'} enrolled. Choose the name above."

    def _told(self, act: Callable[[], str], chosen: str) -> list:
        try:
            said = _said(act())
        except InputError as error:
            said = _said(str(error), wrong=True)
        return [said, *self.refresh(chosen)]


def _introduction(session: Session) -> str:
    limits, model = session.limits, session.model
    kept = f"and in {session.bank}" if session.bank else "only, until this page's server ends"
    profiles = "" if session.why_no_profiles else f" Profiles are kept as embeddings, in memory {kept}."
    return (
        f"<h1>{TITLE}</h1><p>{html.escape(str(model.checkpoint.path))}: {len(model.classes)} classes "
        f"({html.escape(', '.join(model.classes[:12]))}{', …' if len(model.classes) > 12 else ''}). "
        f"Any audio format, up to {limits.seconds:g}&nbsp;s and {limits.megabytes:g}&nbsp;MB. Files are removed once "
        f"they are classified, and nothing is sent to any other place.{html.escape(profiles)}</p>"
    )


def _said(sentence: str, wrong: bool = False) -> str:
    return f'<div class="said{" wrong" if wrong else ""}" role="status">{html.escape(sentence)}</div>'


def _verdict(recording: Recording, found: Answer) -> str:
    prediction = found.prediction
    text = (
        f'<b class="label">{html.escape(prediction.label)}</b> {prediction.probability:.3f}, '
        f"{html.escape(recording.name)}, {recording.seconds:.2f} s, "
        + (f"with profile <b>{html.escape(prediction.profile)}</b>" if found.alone else "by itself")
    )
    if found.alone:
        text += f"<br>By itself: {html.escape(found.alone.label)} {found.alone.probability:.3f}"
    sound = base64.b64encode(recording.as_wav()).decode()
    player = f'<audio controls src="data:audio/wav;base64,{sound}"></audio>'
    return f'<div class="said" role="status">{text}{player}</div>'


def _picture(found: Answer) -> str:
    image = base64.b64encode(render(found.inspection, probabilities=False)).decode()
    return f'<img alt="waveform, spectrogram and attention" src="data:image/png;base64,{image}">'


def _profiles(session: Session) -> str:
    if not session.profiles:
        return "<p>No profile is enrolled.</p>"
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{n_clips}</td></tr>" for name, n_clips in session.profiles.items()
    )
    return f'<table class="profiles"><tr><th>profile</th><th>clips</th></tr>{rows}</table>'


def _choices(session: Session) -> list[tuple[str, str]]:
    return [("no profile: the clip by itself", _NOBODY), *((name, name) for name in session.profiles)]
