"""The benchmark of a million images runs, on two thousand."""

from __future__ import annotations

from benchmarks.scale import STEPS, ScaleOptions, run_step, tree_of


def test_every_step_runs(tmp_path, capsys):
    tree = tree_of(ScaleOptions(folder=tmp_path, images=2000))
    assert tree_of(ScaleOptions(folder=tmp_path, images=2000)) == tree
    assert len(list((tree / "images").rglob("*.jpg"))) == 2000
    for name in STEPS:
        if name != "quick check, classes":  # a part of "training"
            run_step(name, tree)
    assert len(capsys.readouterr().out.splitlines()) == len(STEPS) - 1
