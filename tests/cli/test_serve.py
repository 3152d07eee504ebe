"""`tenfold serve`: what it refuses, and a page of a trained run, trained on its answers."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from web.discs import DISCS, box_of, draw

from tenfold import cli
from tenfold.generated import dolls
from tenfold.runner import serve
from tenfold.web.jobs import Stopped

Call = Callable[..., tuple[int, str, str]]
TAB = "tab-00001"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return draw(tmp_path / "photos")


@pytest.mark.usefixtures("generated_only")
def test_what_cannot_be_served_is_refused_in_one_line(
    call: Call, made: Callable[[str], Path], photos: Path, tmp_path: Path
) -> None:
    run, other = made("apis"), made("spgsn")
    (tmp_path / "full").write_text("")
    for words, says in (
        (("serve", "apsi"), "did you mean 'apis'"),
        (("serve", "spgsn", other), "spgsn cannot serve; systems that can: apis, virreq"),
        (("serve", "apis", run), "which photos? give --images FOLDER"),
        (("serve", "apis", other, "--images", photos), "is a run of spgsn, not of apis"),
        (("serve", "apis", run, "--images", tmp_path / "gone"), "gone"),
        (("serve", "apis", run, "--images", photos, "--port", "70000"), "--port must be 0 to"),
        (("serve", "apis", run, "--images", photos, "--encoder", "x.onnx"), "give both --encoder"),
        (("serve", "apis", run, "--images", photos, "--visit", "0"), "visit"),
        (("serve", "apis", run, "--images", photos, "--boxes", "gone.json"), "gone.json"),
        (("serve", "apis", run, "--images", photos, "--out", tmp_path / "full"), "full"),
        (("serve", "apis", run, "--imags", photos), "--images"),
    ):
        code, _, err = call(*words)
        assert code == 2 and says in err and len(err.splitlines()) == 1, (words, err)


def test_a_missing_extra_is_told_with_its_command(
    call: Call, monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    code, _, err = call("serve", "apis", "run", "--images", photos)
    assert code == 2 and "pip install -e '.[web]'" in err


class Child:
    """A training that is done here when it is waited for, as a process of its own would do it."""

    commands: list[list[str]] = []

    def __init__(self, command: list[str], **more: Any) -> None:
        self.command = command
        Child.commands.append(command)
        self.polls = 0

    def wait(self, timeout: float | None = None) -> int:
        self.polls += 1
        if self.polls == 1:
            raise subprocess.TimeoutExpired(self.command, 0)
        assert self.command[1:3] == ["-m", "tenfold"]
        try:
            cli.main(self.command[3:])
        except SystemExit as end:
            return int(end.code or 0)
        return 0


@pytest.mark.usefixtures("generated_only")
def test_a_run_asks_learns_from_the_answers_and_goes_on(
    call: Call, made: Callable[[str], Path], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos.with_name("photos-labels")
    models = []

    def served(page: Any, port: int, place: Path, say: Callable[[str], None]) -> None:
        assert (port, place) == (8765, folder)
        say("http://127.0.0.1:8765/#key")
        for number, disc in enumerate(DISCS["a.png"]):
            name = page.labels.classes[0]
            said = page.draw(f"box-{number:05}", TAB, 0, box_of(disc), **{"class": name})
        for number in range(4):
            question = said["question"]
            label = ("yes", "no")[number % 2]
            said = page.answer(f"answer-{number:03}", TAB, question["id"], label, 1.0)
        assert said["object"]["mask"] is not None
        page.train()
        page.job.join(120)
        assert page.job.progress["text"] == "model 1 answers now"
        assert [one["answers"] for one in page.progress()["curve"]] == [0, 4]
        models.append(page.segmenter)
        assert page.next(TAB, 0)["question"] is not None

    monkeypatch.setattr(serve, "serve_page", served)
    monkeypatch.setattr(serve, "Popen", Child)
    code, out, err = call("serve", "apis", made("apis"), "--images", photos, "--no-ahead")
    assert code == 0, err
    assert out.splitlines()[0] == "http://127.0.0.1:8765/#key"
    config = json.loads((folder / "rounds/1/config.json").read_text())["config"]
    assert config["steps"] == 2 and config["data"]["path"] == str(photos)
    content = json.loads((folder / "rounds/1/instances_points.json").read_text())
    assert sum(len(a["point_labels"]) for a in content["annotations"]) >= 4

    def reopened(page: Any, *more: Any) -> None:
        models.append(page.segmenter)
        assert page.progress()["answers"] == 4

    monkeypatch.setattr(serve, "serve_page", reopened)
    assert call("serve", "apis", made("apis"), "--images", photos, "--no-ahead")[0] == 0
    first, second = (one.network.state_dict() for one in models)
    assert all(bool((first[key] == second[key]).all()) for key in first)  # the one that was trained
    assert serve.newest(folder) == folder / "models/1"


@pytest.mark.usefixtures("generated_only")
def test_a_run_of_virreq_divides_photos_by_request(
    call: Call, made: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(dolls.pair("test", 1)[0]).save(tmp_path / "photos" / "a.png")
    seen: list[int] = []

    def served(page: Any, port: int, place: Path, say: Callable[[str], None]) -> None:
        assert page.page == "virreq" and "learned its words" in page.state()["refusal"]
        revision = page.tree(0)["picture"]["revision"]
        mine = {"tab": TAB, "image": 0}
        act = page.finish if seen else page.split
        act(f"event-{len(seen):05}", revision=revision, unit=0, **mine)
        seen.append(page.annotations.revision("a.png"))
        assert page.annotations.picture("a.png").tree.root.state == "done"

    monkeypatch.setattr(serve, "serve_page", served)
    words = ("serve", "virreq", made("virreq"), "--images", tmp_path / "photos")
    (tmp_path / "photos-labels" / "models" / "1").mkdir(parents=True)  # of another page
    shutil.copytree(made("apis"), tmp_path / "photos-labels" / "models" / "1", dirs_exist_ok=True)
    for _ in range(2):
        code, _, err = call(*words)
        assert code == 0, err
    assert seen == [1, 2]  # the second goes on
    own = tmp_path / "photos-labels" / "knowledge.json"
    code, _, err = call(*words, "--knowledge", own)
    assert code == 2 and "is the page's own, which it goes on with by itself" in err
    content = json.loads(own.read_text())
    content["nodes"][1]["name"] = "dragon"
    (tmp_path / "kb.json").write_text(json.dumps(content))
    code, _, err = call(*words, "--knowledge", tmp_path / "kb.json")
    assert code == 2 and "the run does not know dragon: its texts were learned with it" in err
    assert len(err.splitlines()) == 1


def test_a_training_that_fails_says_its_last_line_and_one_that_is_stopped_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []

    class Failing:
        def __init__(self, command: list[str], stdout: Any, **more: Any) -> None:
            stdout.write(b"noise\ntenfold: the disk is full\n")

        def wait(self, timeout: float | None = None) -> int:
            return 2

    class Endless(Failing):
        def wait(self, timeout: float | None = None) -> int:
            if timeout is None:
                return -15
            raise subprocess.TimeoutExpired("x", timeout)

        def send_signal(self, number: int) -> None:
            sent.append(number)

    def stop(share: float, text: str) -> None:
        assert (share, text) == (0.0, "opening the pictures")
        raise Stopped

    monkeypatch.setattr(serve, "Popen", Failing)
    with pytest.raises(ValueError, match="tenfold: the disk is full .*1.log"):
        serve.trained("apis", [], tmp_path, stop)
    monkeypatch.setattr(serve, "Popen", Endless)
    with pytest.raises(Stopped):
        serve.trained("apis", [], tmp_path, stop)
    assert sent == [signal.SIGTERM]
