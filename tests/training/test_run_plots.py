from __future__ import annotations

from dataclasses import replace

from router.bundle import write
from training.run_plots import write_plots


def test_both_plots_are_drawn_of_the_rows_held_out(trained, sample, tmp_path):
    write_plots(trained, [sample], (), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"cost_quality.png", "reliability.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5_000 for path in tmp_path.iterdir())


def test_a_bundle_that_was_fitted_on_every_row_has_no_plots(trained, sample, tmp_path):
    config = {**trained.manifest.training["config"], "refit": True}
    manifest = replace(trained.manifest, training={**trained.manifest.training, "config": config})
    files = {name: (trained.directory / name).read_bytes() for name in trained.manifest.files}
    refitted = replace(trained, directory=tmp_path / "refitted", manifest=write(tmp_path / "refitted", manifest, files))
    folder = tmp_path / "plots"
    folder.mkdir()
    write_plots(refitted, [sample], (), folder)
    assert not list(folder.iterdir())
