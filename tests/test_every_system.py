"""What every system promises, asked of each at its smallest, on generated data."""

from __future__ import annotations

import ast
import csv
import dataclasses
import inspect
import json
import math
import os
import re
import signal
import textwrap
import typing
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import IMPROVING, PLAIN, SAMPLES, config, options

import tenfold
from tenfold import cli, systems
from tenfold.cli.arguments import flags_of
from tenfold.core import dist, loop
from tenfold.core.capabilities import CAPABILITIES, ExportsOfficial
from tenfold.core.config import from_json, get, to_json
from tenfold.core.seed import seed_everything
from tenfold.core.system import Evaluation, System
from tenfold.files import asking
from tenfold.report.results import lookup
from tenfold.runner import train
from tenfold.runner.weights import completed, construct, save_weights

pytestmark = [
    # of the module: tests of one system follow each other, so that a process of the tests trains
    # few of the tiny runs
    pytest.mark.parametrize("name", list(systems.SYSTEMS), scope="module"),
    pytest.mark.usefixtures("generated_only"),
]
Made = Callable[[str], Path]
TINY_SCRIPT = Path(__file__).parent / "tiny.py"
HERE = dist.World(0, 1, torch.device("cpu"))
REQUIRED = ("paper", "small", "demo", "demo-baseline")


def kinds(cls: type) -> Iterator[type]:
    """A configuration class and those nested in it."""
    yield cls
    for kind in typing.get_type_hints(cls).values():
        if is_dataclass(kind):
            yield from kinds(kind)  # type: ignore[arg-type]


def only_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end when the weights are written: no evaluation, no page."""
    monkeypatch.setattr(train, "conclude", lambda *_: {})


def outputs(system: System[Any]) -> list[torch.Tensor]:
    """What the network gives for the example inputs of its export."""
    what = system.export()
    with torch.no_grad():
        found = what.module.eval()(*what.inputs)
    return [found] if isinstance(found, torch.Tensor) else list(found)


# --- configuration -----------------------------------------------------------------------------


def test_recipes_exist_and_survive_json(name: str) -> None:
    recipes = systems.system_class(name).recipes
    assert set(REQUIRED) <= set(recipes)
    for recipe in recipes.values():
        through = json.loads(json.dumps(to_json(recipe)))
        assert from_json(type(recipe), through) == recipe
        completed = systems.system_class(name).complete(recipe)
        through = json.loads(json.dumps(to_json(completed)))
        assert from_json(type(completed), through) == completed


def test_a_recipe_differs_from_the_paper_in_values_only(name: str) -> None:
    recipes = systems.system_class(name).recipes
    assert len({type(r) for r in recipes.values()}) == 1
    assert all(r.__dataclass_params__.frozen for r in recipes.values())


def test_unknown_fields_are_refused(name: str) -> None:
    recipe = systems.system_class(name).recipes["demo"]
    values = to_json(recipe)
    with pytest.raises(ValueError, match="colour"):
        from_json(type(recipe), {**values, "colour": 1})
    with pytest.raises(ValueError, match=r"config\.loop.*colour"):
        from_json(type(recipe), {**values, "loop": {**values["loop"], "colour": 1}})
    with pytest.raises(ValueError, match=r"config\.seed must be a int"):
        from_json(type(recipe), {**values, "seed": "7"})


def test_every_field_says_what_it_is(name: str) -> None:
    """A docstring stands under each field; a nested configuration has its class's."""
    for kind in set(kinds(type(systems.system_class(name).recipes["paper"]))):
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body
        hints = typing.get_type_hints(kind)
        assert kind.__doc__
        for field, below in zip(body, [*body[1:], ast.Pass()], strict=True):
            if isinstance(field, ast.AnnAssign) and not is_dataclass(hints[field.target.id]):
                assert isinstance(below, ast.Expr), f"{kind.__name__}: {ast.unparse(field)}"


def test_help_mentions_every_field(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as end:
        cli.main(["train", name, "demo", "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    flags = flags_of(type(systems.system_class(name).recipes["demo"]))
    missing = [f for f in flags if f not in text and f.replace("--", "--no-") not in text]
    assert len(flags) > 15 and not missing


def test_the_paper_is_named(name: str) -> None:
    cls = systems.system_class(name)
    assert re.fullmatch(r"\d{4}\.\d{4,5}", cls.paper.arxiv)
    assert all(getattr(cls.paper, f.name).strip() for f in dataclasses.fields(cls.paper))
    assert cls.paper.cite.startswith("@") and cls.paper.cite.count("{") == cls.paper.cite.count("}")
    assert cls.task and cls.intended and cls.headline
    assert all(lookup(key, cls.better) for key in cls.headline)
    assert set(cls.better.values()) <= {"lower", "higher"}
    assert systems.SYSTEMS[name].task == cls.task


# --- one step ----------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["demo", "demo-baseline"])
def test_one_step_is_finite_and_reaches_every_parameter(name: str, recipe: str) -> None:
    system = construct(systems.system_class(name), config(name, recipe, options(name)))
    for stage in system.stages():
        stage.model.train()
        for index in range(4 if stage.alternates else 1):
            batch = [stage.batches(index)] if stage.parallel else stage.batches(index)
            losses = stage.training_step(stage.model, batch, lambda loss: loss.backward())
            assert all(math.isfinite(float(v.detach())) for v in losses.values()), losses
        wanted = {n: p for n, p in stage.model.named_parameters() if p.requires_grad}
        assert wanted
        assert not [n for n, p in wanted.items() if p.grad is None]
        assert not [n for n, p in wanted.items() if not bool(torch.isfinite(p.grad).all())]


def test_batches_follow_from_the_index_alone(name: str) -> None:
    cfg = config(name, "demo", options(name))
    cls = systems.system_class(name)
    first, second = construct(cls, cfg), construct(cls, cfg)
    a, b = next(first.stages()), next(second.stages())
    early = a.batches(1)
    a.batches(5)
    for one in (a.batches(1), b.batches(1)):
        flat = list(zip(tensors(early), tensors(one), strict=True))
        assert flat and all(torch.equal(x, y) for x, y in flat)


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value
    return [t for v in items for t in tensors(v)] if isinstance(value, (dict, list, tuple)) else []


# --- a run -------------------------------------------------------------------------------------


def test_a_run_folder_holds_what_it_should(name: str, made: Made) -> None:
    folder = made(name)
    files = "config.json environment.json metrics.jsonl result.json report.html MODEL_CARD.md"
    for file in [*files.split(), "weights.safetensors"]:
        assert (folder / file).stat().st_size > 0, file
    assert not list(folder.rglob("*.tmp"))
    result = json.loads((folder / "result.json").read_text())
    assert result["system"] == name and result["recipe"] == "demo"
    assert set(systems.system_class(name).headline) <= set(result["metrics"])
    assert all(math.isfinite(v) for v in result["metrics"].values())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert {"stage", "step", "split"} <= lines[0].keys()


def test_what_stands_in_for_absent_data_is_named(name: str, made: Made) -> None:
    """Generated data is called generated; a fallback to other real data says that it is one."""
    folder = made(name)
    system = tenfold.load(folder)
    used = system.data_used()
    assert used.name and used.note
    says = "generated" if used.kind == "generated" else "fallback, because no data set was found"
    assert says == used.kind or used.note.startswith(says)
    assert json.loads((folder / "result.json").read_text())["data"]["kind"] == used.kind
    assert says in (folder / "report.html").read_text()
    assert says in (folder / "MODEL_CARD.md").read_text()
    assert all(isinstance(n, str) and n.strip() for n in system.notes())
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    known = {*metrics, *(key.rsplit("/", 1)[-1] for key in metrics)}
    # rows that a short run does not have are of a group that it has
    groups = {key.split("/")[0] for key in metrics}
    assert all(key in known or key.split("/")[0] in groups for key in system.labels())


def test_weights_survive_saving_bit_for_bit(name: str, made: Made, tmp_path: Path) -> None:
    system = tenfold.load(made(name))
    save_weights(tmp_path / "again.safetensors", name, system)
    again = tenfold.load(tmp_path / "again.safetensors")
    assert again.cfg == system.cfg and type(again) is type(system)
    for a, b in zip(outputs(system), outputs(again), strict=True):
        assert torch.equal(a, b)


def test_a_loaded_run_measures_what_the_run_measured(name: str, made: Made) -> None:
    result = json.loads((made(name) / "result.json").read_text())
    found = tenfold.load(made(name)).evaluate("test")
    assert found.metrics == result["metrics"] and found.baselines == result["baselines"]


def test_killed_run_equals_unkilled(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL in the middle, with threads, accumulation and an average of the weights."""
    words = ["train", name, "demo", *options(name), "--loop.save-every", "2", "--loop.workers", "2"]
    words += ["--loop.accumulate", "2", "--loop.ema", "0.9", "--loop.log-every", "1"]
    killed, whole = (
        ["--run.folder", str(tmp_path / "killed")],
        ["--run.folder", str(tmp_path / "whole")],
    )
    done = forked.run(TINY_SCRIPT, "3", *words, *killed)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "killed/weights.safetensors").exists()
    steps = [p.name for p in (tmp_path / "killed/checkpoints").glob("*/step-*")]
    assert steps == ["step-000000002"]
    only_weights(monkeypatch)
    cli.main([*words, *killed])
    cli.main([*words, *whole])
    a, b = (load_file(tmp_path / x / "weights.safetensors") for x in ("killed", "whole"))
    assert a.keys() == b.keys()
    assert not [key for key in a if not torch.equal(a[key], b[key])]
    logs = [(tmp_path / x / "metrics.jsonl").read_text().splitlines() for x in ("killed", "whole")]
    for one, other in zip(*logs, strict=True):
        left, right = (
            {
                k: v
                for k, v in json.loads(line).items()
                if k != "share_of_peak" and "second" not in k
            }
            for line in (one, other)
        )
        assert left == right


def test_two_processes_equal_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torchrun` on gloo: each process its half of the batch, the same weights in the end."""
    words = ["train", name, "demo", *options(name), *PLAIN[name]]
    done = forked.torchrun(2, "-m", "tenfold", *words, "--run.folder", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "two/environment.json").read_text())["world_size"] == 2
    assert (tmp_path / "two/report.html").exists()
    # each process measured its share
    measured = json.loads((tmp_path / "two/result.json").read_text())["metrics"]
    assert tenfold.load(tmp_path / "two").evaluate("test").metrics == measured
    only_weights(monkeypatch)
    cli.main([*words, "--run.folder", str(tmp_path / "one")])
    one, two = (load_file(tmp_path / x / "weights.safetensors") for x in ("one", "two"))
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("scale", ["tiny", pytest.param("demo", marks=pytest.mark.slow)])
def test_the_demo_learns(name: str, scale: str, tmp_path: Path) -> None:
    """The headline metrics beat the untrained network's (tiny: a smaller one, fewer steps)."""
    words = [*options(name), *IMPROVING[name]] if scale == "tiny" else []
    cls, cfg = systems.system_class(name), config(name, "demo", words)
    before = construct(cls, cfg).evaluate("test").metrics
    system = construct(cls, cfg)
    loop.train(system.stages(), cfg.loop, HERE, tmp_path, cfg.seed)
    after = system.evaluate("test").metrics
    for key in cls.headline:
        better = lookup(key, cls.better)
        assert (after[key] < before[key]) == (better == "lower"), (key, before[key], after[key])


# --- use ---------------------------------------------------------------------------------------


def test_predict_writes_files(name: str, made: Made, tmp_path: Path) -> None:
    """It asks before it writes; who seeds, opens a run and adds layers gets those of the seed."""
    folder, sample = made(name), SAMPLES[name](tmp_path)
    claimed: list[Path] = []

    def drawn() -> list[float]:  # not Python's: beartype draws the items that it looks at
        return [np.random.rand(), *torch.rand(4).tolist()]

    seed_everything("theirs")
    expected = drawn()
    seed_everything("theirs")
    with asking(claimed.append):  # so that `tenfold predict` writes over nothing of others
        written = tenfold.load(folder).predict(sample, tmp_path / "out")
    assert drawn() == expected
    assert set(written) <= set(claimed)
    assert written and all(path.stat().st_size > 0 for path in written)
    assert sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file()) == sorted(written)


def test_what_a_folder_offers_and_cannot_be_read_is_listed(
    name: str, made: Made, shut: Callable[[Path], None], tmp_path: Path
) -> None:
    """Links that lead out, a link to nothing, a pipe and a folder that may not be looked into stop
    nothing, and none is left unsaid."""
    if "picture" not in systems.system_class(name).accepts:
        pytest.skip("does not predict from pictures")
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (40, 32), "red").save(folder / "good.png")
    Image.new("RGB", (40, 32), "red").save(tmp_path / "secret.png")
    (folder / "secret.png").symlink_to(tmp_path / "secret.png")
    (folder / "loop").symlink_to("..")
    (folder / "broken.jpg").symlink_to("nowhere.jpg")
    (folder / "self.jpg").symlink_to("self.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "shut").mkdir()
    Image.new("RGB", (40, 32), "red").save(folder / "shut" / "unseen.png")
    shut(folder / "shut")
    tenfold.load(made(name)).predict(folder, tmp_path / "out")
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    said = {row["file"]: row["problem"] for row in rows if row["problem"]}
    assert said.keys() == {"secret.png", "loop", "broken.jpg", "self.jpg", "pipe.jpg", "shut"}
    assert "shut is a folder that may not be looked into" in said["shut"]
    assert all(f"{file} leads out of" in said[file] for file in ("secret.png", "loop"))
    assert all("not there, or is not a file" in said[f"{n}.jpg"] for n in ("broken", "pipe"))
    assert any(row["file"] == "good.png" and not row["problem"] for row in rows)


def test_predict_takes_names_as_text(name: str, made: Made, tmp_path: Path) -> None:
    system, out = tenfold.load(made(name)), str(tmp_path / "out")
    assert system.predict(str(SAMPLES[name](tmp_path)), out)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        system.predict(str(tmp_path / "nowhere"), out)
    with pytest.raises(ValueError, match="options of predict must be a"):
        system.predict(str(tmp_path), out, Evaluation({}))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "gone").symlink_to("nowhere")
    for place in ("file", "file/out"):
        with pytest.raises(ValueError, match=r"file is a file; give a folder"):
            system.predict(str(tmp_path), tmp_path / place)
        with pytest.raises(ValueError, match=r"file is a file; give a folder"):
            system.pictures(Evaluation({}), tmp_path / place)
    with pytest.raises(ValueError, match="gone is a link to nowhere, which is not there"):
        system.predict(str(tmp_path), tmp_path / "gone")


def test_pictures_need_an_evaluation(name: str, made: Made, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="evaluate first"):
        tenfold.load(made(name)).pictures(str(tmp_path / "pictures"))
    assert not (tmp_path / "pictures").exists()


def test_a_place_is_read_or_refused(name: str, tmp_path: Path) -> None:
    """The place of data is not passed over where the recipe's set is none of files, and what is
    not in the set's form leads to the name for files of one's own."""
    cls, given = systems.system_class(name), {}
    for place, called in cls.sets.items():
        (tmp_path / place).mkdir()
        given[place] = str(tmp_path / place)
        for generated in cls.generated:
            wrong = _with(cls.recipes["demo"], {place: given[place], called: generated})
            with pytest.raises(ValueError, match=rf"{called} is {generated}, which is not read"):
                completed(cls, wrong)
    if name in ("virreq", "ldc", "ppmoe", "spgsn"):
        return  # files of one's own take the form of a set; or spgsn, whose reader says it
    with pytest.raises(FileNotFoundError, match=rf"Files of your own are --.* {cls.own_data}\.$"):
        completed(cls, _with(cls.recipes["small"], given))


def test_data_of_other_classes_are_not_measured(name: str, made: Made, tmp_path: Path) -> None:
    """A folder whose classes were changed since: its numbers mean others than the run learned."""
    system = tenfold.load(made(name))
    if not getattr(system.cfg, "classes", ()):
        pytest.skip("has no classes")
    others = tuple(f"other {word}" for word in system.cfg.classes)
    system.cfg = dataclasses.replace(system.cfg, classes=others)
    save_weights(tmp_path / "other.safetensors", name, system)
    with pytest.raises(ValueError, match=r"the run has \d+ classes|other classes than this run"):
        tenfold.load(tmp_path / "other.safetensors").evaluate("test")


def test_a_run_whose_data_are_gone_predicts_and_measures_nothing_else(
    name: str, made: Made, tmp_path: Path
) -> None:
    """Data sets that are gone, or files of one's own: none is taken for the generated set."""
    system, small = tenfold.load(made(name)), systems.system_class(name).recipes["small"]
    public = {called: get(small, called) for called in system.sets.values()}
    own = {called: system.own_data for called in public} if system.own_data != "" else {}
    own |= {place: str(tmp_path / "gone") for place in system.sets if own}
    if name == "itpn":
        own = {}  # its tiny run has a task that is not for a folder of one's own
    sample = SAMPLES[name](tmp_path)
    for number, changes in enumerate(filter(None, (public, own))):
        system.cfg = _with(system.cfg, changes)
        save_weights(tmp_path / f"{number}.safetensors", name, system)
        gone = tenfold.load(tmp_path / f"{number}.safetensors")
        assert gone.predict(sample, tmp_path / f"out {number}")
        if name != "virreq":  # its knowledge base is of the tiny run's own set
            with pytest.raises(FileNotFoundError, match=r"was not found|gone.* (is|does) not"):
                gone.evaluate("test")


def _with(cfg: Any, changes: dict[str, str]) -> Any:
    values = to_json(cfg)
    for name, value in changes.items():
        *groups, field = name.split(".")
        at = values
        for group in groups:
            at = at[group]
        at[field] = value
    return from_json(type(cfg), values)


def test_a_verb_is_refused_by_who_can_not(name: str, made: Made) -> None:
    """The table of verbs is what the classes have."""
    system, verbs = tenfold.load(made(name)), systems.SYSTEMS[name].verbs
    assert {verb for verb, has in CAPABILITIES.items() if isinstance(system, has)} == {
        verb for verb in verbs if verb in CAPABILITIES
    }
    for verb in CAPABILITIES:
        able = [n for n, entry in systems.SYSTEMS.items() if verb in entry.verbs]
        assert str(systems.refusal(name, verb)).endswith(f"systems that can: {', '.join(able)}")


def test_official_files_go_into_an_empty_folder(name: str, made: Made, tmp_path: Path) -> None:
    system = tenfold.load(made(name))
    if not isinstance(system, ExportsOfficial):
        pytest.skip("writes no official files")
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not empty; choose another --out"):
        system.export_official(out)
    assert [p.name for p in out.iterdir()] == ["mine"]


def test_claims_can_be_judged(name: str, made: Made) -> None:
    cls = systems.system_class(name)
    claims = tenfold.load(made(name)).claims()
    known = json.loads((made(name) / "result.json").read_text())["metrics"]
    assert claims
    for claim in claims:
        assert claim.says.endswith(".") and claim.baseline != claim.method
        assert claim.better == lookup(claim.metric, cls.better)
        assert len(claim.seeds) >= 3
        assert claim.method.config.seed == claim.baseline.config.seed
    assert claims[0].metric in known
