"""`modicum` as a user runs it: help without JAX, hints, exit codes, configs by name."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import modicum
from modicum import command
from modicum.cli import configs
from modicum.cli.main import COMMANDS, main
from modicum.train import Interrupted

ROOT = Path(__file__).parents[2]


def run(*words, **more):
    done = subprocess.run(
        [sys.executable, "-m", "modicum", *words], capture_output=True, text=True, check=False, **more
    )
    return done.returncode, done.stdout, done.stderr


def test_help_and_version_import_no_jax():
    program = "import sys; from modicum.cli.main import main; main(['--help']); assert 'numpy' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert run("--version") == (0, f"modicum {modicum.__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_examples_that_its_parser_takes(name, capsys):
    """Also by `modicum help COMMAND`; JAX is not needed to ask."""
    for words in ([name, "--help"], ["help", name]):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 0
        output = capsys.readouterr().out
        assert output.startswith(f"usage: modicum {name} ")
    module = importlib.import_module(f"modicum.cli.{name}")
    for example in getattr(module, "EXAMPLES", ()):
        assert f"modicum {name} {example}".strip() in output
        arguments = module.flags(example.split(), f"modicum {name}")
        if "/" in getattr(arguments, "config", ""):
            assert configs.find(arguments.config).is_file()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian", "digits"], "got 'trian': did you mean 'train'?"),
        (["Export"], "got 'Export': did you mean 'export'?"),
        (["frobnicate"], "got 'frobnicate': see modicum --help"),
        ([], "usage: modicum"),
        (["train"], "the following arguments are required: config"),
        (["federate", "sefl/digits", "--engine", "ray"], "invalid choice: 'ray'"),
    ],
)
def test_bad_usage_is_code_2(words, sentence, capsys):
    try:
        code = main(words)
    except SystemExit as stopped:
        code = stopped.code
    output, errors = capsys.readouterr()
    assert (code, output) == (2, "")
    assert sentence in errors


def test_a_config_that_is_none_is_one_sentence_with_a_hint(tmp_path):
    code, output, errors = run("train", "train/digitz", cwd=tmp_path)
    assert (code, output) == (2, "")
    assert errors == (
        "modicum train: config must be a Python file such as configs/train/digits.py, got 'train/digitz': "
        "did you mean 'train/digits'?\n"
    )
    assert not any(tmp_path.iterdir())


def test_a_small_training_by_name_from_any_folder(tmp_path):
    words = ("train", "train/digits", "model.widths=2", "batch=8", "steps=2", "--run", "here")
    code, output, errors = run(*words, cwd=tmp_path)
    assert code == 0, errors
    assert "test accuracy" in output
    assert (tmp_path / "here" / "result.json").is_file()


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("steps must be at least 1, got 0"), 2, "modicum train: steps must be at least 1, got 0\n"),
        (FileNotFoundError(2, "No such file or directory", "a.mp4"), 2, "'a.mp4'\n"),
        (OSError(28, "No space left on device"), 1, "modicum train: [Errno 28] No space left on device\n"),
        (ImportError("this needs the package av: pip install 'modicum[conference]'"), 1, "'modicum[conference]'\n"),
        (Interrupted(7), 130, "interrupted: step 7 is saved in runs/x; run the same command again to go on\n"),
    ],
)
def test_every_ending_is_one_sentence(error, code, said, capsys):
    assert command.exit_code(raising(error), "is saved in runs/x", "modicum train") == code
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.endswith(said)
    assert errors.count("\n") == 1


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ImportError, match="cannot import name"):
        command.exit_code(raising(ImportError("cannot import name 'x' from 'modicum'")), "", "modicum train")


def test_a_config_is_found_by_name_by_path_and_where_the_user_is(tmp_path, monkeypatch):
    expected = ROOT / "configs" / "train" / "digits.py"
    for word in ("train/digits", "train/digits.py", "configs/train/digits.py", str(expected)):
        assert configs.find(word).samefile(expected)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "digits.py").write_text("mine")
    assert configs.find("train/digits.py").read_text() == "mine"


def test_an_installed_package_finds_what_its_wheel_brought(tmp_path, monkeypatch):
    """Files as pip records them: relative to site-packages."""
    site, shared = tmp_path / "lib" / "python3" / "site-packages", tmp_path / "share" / "modicum" / "configs" / "train"
    shared.mkdir(parents=True)
    (site / "modicum-1.0.dist-info").mkdir(parents=True)
    (shared / "digits.py").write_text("")
    (site / "modicum-1.0.dist-info" / "METADATA").write_text("Name: modicum\nVersion: 1.0\n")
    record = "modicum/__init__.py,,\n../../../share/modicum/configs/train/digits.py,,\n"
    (site / "modicum-1.0.dist-info" / "RECORD").write_text(record)
    monkeypatch.setattr(configs, "CHECKOUT", tmp_path)
    monkeypatch.syspath_prepend(str(site))
    configs.folder.cache_clear()
    try:
        assert configs.names() == ["train/digits"]
        assert configs.find("train/digits").samefile(shared / "digits.py")
    finally:
        configs.folder.cache_clear()


def test_every_folder_of_configs_is_in_the_wheel():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    kinds = {path.parent.name for path in (ROOT / "configs").glob("*/*.py")}
    expected = {f"share/modicum/configs/{kind}": [f"configs/{kind}/*.py"] for kind in kinds}
    assert project["tool"]["setuptools"]["data-files"] == expected
    assert project["project"]["scripts"] == {"modicum": "modicum.cli.main:main"}


def test_every_script_is_a_command():
    """But `tables`, which is one itself, and one whose script would hide the package of its name."""
    for name in set(COMMANDS) - {"tensorboard"}:
        text = (ROOT / "scripts" / f"{name}.py").read_text()
        assert name == "tables" or f"from modicum.cli.{name} import main" in text


def test_tables_need_a_checkout(tmp_path, monkeypatch, capsys):
    assert main(["tables"]) == 0
    assert "| data | dense |" in capsys.readouterr().out
    monkeypatch.setattr("modicum.cli.tables.CHECKOUT", tmp_path)
    assert main(["tables"]) == 2
    assert "in a checkout of the repository" in capsys.readouterr().err
