"""Which room may import which, and that what needs no fairseq is imported without it."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

PACKAGE = tiny.ROOT / "fairseq_neupronet"
EVERYBODY = {"errors", "files", "arrays", "config", "training_progress"}
NETWORK_SIDE = {"networks", "backbones", "profiles", "checkpoints", "audio", "data"}
MAY = {
    "config": set(),
    "audio": set(),
    "profiles": set(),
    "backbones": {"checkpoints"},
    "networks": {"backbones", "profiles"},
    "checkpoints": {"audio", "backbones"},
    "data": {"audio", "profiles"},
    "preparation": {"audio", "data", "profiles"},
    "inference": NETWORK_SIDE,
    "evaluation": {"inference"} | NETWORK_SIDE,
    "export": {"inference"} | NETWORK_SIDE,
    "serving": {"inference"} | NETWORK_SIDE,
    "benchmark": {"evaluation", "profiles", "fairseq"},
    "conversion": {"checkpoints", "networks", "backbones", "audio", "data", "evaluation", "models", "fairseq"},
    "trainer": {"checkpoints", "fairseq"},
    "models": {"networks", "backbones", "checkpoints", "data", "profiles", "audio", "evaluation", "trainer", "fairseq"},
    "runs": {"tasks", "evaluation", "checkpoints", "trainer", "data", "profiles", "audio", "fairseq"},
}
MAY["criterions"] = MAY["models"] | {"models"}
MAY["tasks"] = MAY["models"] | {"models", "criterions"}
# Rooms above the line where fairseq begins.
WITHOUT_FAIRSEQ = ("config", "audio", "profiles", "backbones", "networks", "checkpoints", "data", "preparation")
WITHOUT_FAIRSEQ += ("inference", "evaluation", "export", "serving", "cli")


def imports(path: Path) -> set[str]:
    """Rooms of the package that a module imports, anywhere in it, and ``fairseq``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module != PACKAGE.name else [f"{node.module}.{a.name}" for a in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith(f"{PACKAGE.name}.")}
        found |= {"fairseq" for name in names if name.split(".")[0] in ("fairseq", "fairseq_cli")}
    return {
        name for name in found if name == "fairseq" or (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists()
    }


@pytest.mark.parametrize("room", MAY)
def test_a_room_imports_what_the_table_allows(room):
    allowed = MAY[room] | ({"errors", "files"} if room == "config" else EVERYBODY) | {room}
    assert {
        str(path.relative_to(PACKAGE)): sorted(beyond)
        for path in (PACKAGE / room).rglob("*.py")
        if (beyond := imports(path) - allowed)
    } == {}


def modules_imported(path: Path) -> set[str]:
    """Dotted names of the package's modules that a module imports from other rooms, without the package's own name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    names = {name.removeprefix(f"{PACKAGE.name}.") for name in found if name.startswith(f"{PACKAGE.name}.")}
    is_module = {name for name in names if PACKAGE.joinpath(*name.split(".")).with_suffix(".py").exists()}
    return {name for name in is_module if name.split(".")[0] != path.relative_to(PACKAGE).parts[0]}


# What fairseq registers, and what only commands enter, one module each.
WITHOUT_DOOR = {"models", "criterions", "tasks", "preparation", "conversion"}


def test_other_rooms_enter_only_what_a_room_offers():
    entered = {name for path in PACKAGE.rglob("*.py") for name in modules_imported(path)}
    entered = {name for name in entered if "." in name and name.split(".")[0] not in WITHOUT_DOOR}
    assert len(entered) > 40
    for name in sorted(entered):
        *room, module = name.split(".")
        assert module in importlib.import_module(".".join([PACKAGE.name, *room])).__all__, name
    rooms = [path.parent for path in PACKAGE.rglob("__init__.py") if "lazy_loader" in path.read_text(encoding="utf-8")]
    for room in rooms:
        door = importlib.import_module(".".join(room.relative_to(PACKAGE.parent).parts))
        for name in door.__all__:
            assert getattr(door, name) is not None


def test_every_room_stands_in_the_table_and_nothing_imports_the_command_line():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms == {*MAY, "cli"}
    assert not [
        path
        for path in PACKAGE.rglob("*.py")
        if "cli" in imports(path) and path.parent.name not in ("cli", PACKAGE.name)
    ]


def test_above_the_line_everything_imports_where_fairseq_is_missing():
    modules = [
        ".".join(path.with_suffix("").relative_to(PACKAGE.parent).parts).removesuffix(".__init__")
        for room in WITHOUT_FAIRSEQ
        for path in sorted((PACKAGE / room).rglob("*.py"))
    ]
    assert len(modules) > 60
    code = (
        "import importlib, sys\n"
        "sys.modules['fairseq'] = sys.modules['fairseq_cli'] = None\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, *modules], capture_output=True, text=True, env=tiny.environment()
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("module", ["cli", "audio.recipe", "config.stages", "config.retired", "config.generate"])
def test_what_a_command_begins_with_loads_neither_torch_nor_fairseq(module):
    code = f"import sys, {PACKAGE.name}.{module}; print({{'torch', 'fairseq'}} & sys.modules.keys())"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=tiny.environment())
    assert finished.stdout.strip() == "set()", finished.stdout + finished.stderr
