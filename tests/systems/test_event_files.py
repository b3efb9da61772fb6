"""Run folders as TensorBoard reads them: its own EventAccumulator gives back what the runs wrote."""

import subprocess
import sys

import numpy as np
import pytest

from modicum import train
from modicum.cli.main import main
from modicum.systems import event_files

pytest.importorskip("tensorboardX")
accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

LINES = [{"step": step, "loss": 1 / step, "accuracy": step / 10} for step in range(1, 6)]
RESULT = {
    "data": "digits",
    "test_accuracy": 0.875,
    "chips": [0.5, 0.625, 0.75],
    "total": {"energy_joules": 2.0, "name": "total"},
    "layers": [{"name": "params/Dense_0/kernel", "macs": 640}],
}
REPORT = {
    "admm_losses": [3.0, 2.0],
    "retrain_losses": [1.5],
    "rho": [0.1, 0.2],
    "leaves": [{"path": "params/w", "primal": [0.5, 0.25], "dual": []}],
}


def make_run(folder, lines=LINES):
    folder.mkdir(parents=True)
    train.metrics.append(folder / "metrics.jsonl", lines)
    train.report.write_json(folder / "config.json", {"epochs": 3})
    train.report.write_json(folder / "result.json", RESULT)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "result.json").write_text("not a run")


def read(folder):
    # 0: all events, no sample of them
    board = accumulators.EventAccumulator(
        str(folder), size_guidance=dict.fromkeys(accumulators.STORE_EVERYTHING_SIZE_GUIDANCE, 0)
    )
    board.Reload()
    return board


def scalars(board, tag):
    return [(event.step, event.value) for event in board.Scalars(tag)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two runs, one of them compressed; written by the command."""
    root = tmp_path_factory.mktemp("boards")
    make_run(root / "runs" / "first")
    compressed = root / "runs" / "deeper" / "second"
    compressed.mkdir(parents=True)
    train.report.write_json(compressed / "report.json", REPORT)
    assert main(["tensorboard", str(root / "runs"), "--to", str(root / "logs")]) == 0
    return root


def test_curves_are_those_of_the_run(written):
    board = read(written / "logs" / "first")
    for name in ("loss", "accuracy"):
        expected = [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in LINES]
        assert scalars(board, name) == expected
    admm = read(written / "logs" / "deeper" / "second")
    assert scalars(admm, "loss/admm") == [(1, 3.0), (2, 2.0)]
    assert scalars(admm, "loss/retrain") == [(1, 1.5)]
    assert scalars(admm, "residual/params/w/primal") == [(1, 0.5), (2, 0.25)]
    assert "residual/params/w/dual" not in admm.Tags()["scalars"]


def test_results_stand_at_the_last_step(written):
    board = read(written / "logs" / "first")
    assert scalars(board, "result/test_accuracy") == [(5, 0.875)]
    assert scalars(board, "result/total/energy_joules") == [(5, 2.0)]
    assert scalars(board, "result/layers/params/Dense_0/kernel/macs") == [(5, 640.0)]
    (chips,) = board.Histograms("result/chips")
    assert chips.step == 5
    value = chips.histogram_value
    assert (value.num, value.min, value.max) == (3, 0.5, 0.75)
    assert value.sum == pytest.approx(1.875)


def test_the_config_is_text(written):
    board = read(written / "logs" / "first")
    (tag,) = (name for name in board.Tags()["tensors"] if name.startswith("config"))
    (event,) = board.Tensors(tag)
    assert '"epochs": 3' in event.tensor_proto.string_val[0].decode()


def test_pictures_are_images(tmp_path):
    from matplotlib import image

    make_run(tmp_path / "drawn")
    image.imsave(tmp_path / "drawn" / "figure.png", np.zeros((4, 6, 3)))
    event_files.write(event_files.find([tmp_path / "drawn"]), tmp_path / "logs")
    (event,) = read(tmp_path / "logs" / "drawn").Images("figure")
    assert (event.height, event.width, event.step) == (4, 6, 5)


def test_writing_again_replaces_and_a_longer_run_is_longer(tmp_path):
    run, logs = tmp_path / "run", tmp_path / "logs"
    make_run(run, LINES[:3])
    for _ in range(2):
        event_files.write(event_files.find([run]), logs)
        assert [step for step, _ in scalars(read(logs / "run"), "loss")] == [1, 2, 3]
    train.metrics.append(run / "metrics.jsonl", LINES[3:])
    event_files.write(event_files.find([run]), logs)
    assert [step for step, _ in scalars(read(logs / "run"), "loss")] == [1, 2, 3, 4, 5]
    assert [path.name for path in logs.rglob("*") if path.is_file()] == [event_files.FILE]


def test_a_failure_leaves_nothing_and_what_was_there_stays(tmp_path, monkeypatch):
    make_run(tmp_path / "run")
    runs, logs = event_files.find([tmp_path / "run"]), tmp_path / "logs"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(event_files, "results", stop)
        patched.setattr(event_files, "_check", lambda _: None)
        with pytest.raises(KeyboardInterrupt):
            event_files.write(runs, logs)
        assert not logs.exists()
    (file,) = event_files.write(runs, logs)
    before = file.read_bytes()
    (tmp_path / "run" / "result.json").write_text("{")
    with pytest.raises(ValueError, match=r"run must hold a readable result\.json"):
        event_files.write(runs, logs)
    assert file.read_bytes() == before
    assert [path.name for path in logs.rglob("*") if path.is_file()] == [event_files.FILE]


def test_folders_without_runs_and_names_taken_twice_are_refused(tmp_path, capsys):
    assert main(["tensorboard", str(tmp_path / "none"), "--to", str(tmp_path / "logs")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("modicum tensorboard: run folder must hold one of metrics.jsonl, ")
    assert errors.count("\n") == 1
    assert not (tmp_path / "logs").exists()
    make_run(tmp_path / "a" / "run")
    make_run(tmp_path / "b" / "run")
    with pytest.raises(ValueError, match="runs must have names of their own, got 'run' twice"):
        event_files.find([tmp_path / "a" / "run", tmp_path / "b" / "run"])
    assert list(event_files.find([tmp_path])) == ["a/run", "b/run"]


def test_without_the_extra_it_is_named(tmp_path, monkeypatch):
    make_run(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"pip install 'modicum\[tensorboard\]'"):
        event_files.write(event_files.find([tmp_path / "run"]), tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_the_module_imports_nothing_of_it():
    program = "import sys, modicum.systems.event_files; print({'tensorboardX', 'tensorboard'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
