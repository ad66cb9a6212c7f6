"""Makes the rungs of the ladder: fp32, fp16 and static INT8 (QDQ) artifacts of every trained point.

<work>/<point>.onnx -> checked fp32 | fp16 inside, fp32 at its ends | INT8 by the calibration that validates best
      -> <work>/candidates (a ladder folder with every rung) ... evaluate.py ... -> ladder/ and ladder-int8/

Two steps, with the evaluation between them: which rungs the ladder has, and in which order, is measured.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from front import GPU_PRECISION, front, read
from manifest import PIXEL_MEAN, PIXEL_STD, write
from net import POINTS, Point
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from pictures import Pixels, load
from rung import OpenRung

from flyball.demo import surface
from flyball.ladder.manifest import load as load_ladder
from flyball_kernels.resize import resize

HERE = Path(__file__).parent
CALIBRATION_PICTURES = 128  # the histograms keep every activation of all of them in memory: 2 GB at 224 pixels
VALIDATION_PICTURES = 2_000
CALIBRATIONS: dict[str, tuple[CalibrationMethod, dict[str, Any]]] = {
    "minmax": (CalibrationMethod.MinMax, {}),
    "percentile": (CalibrationMethod.Percentile, {"CalibPercentile": 99.995}),
}
SIZE_LIMIT_BYTES = 8_000_000
NOTE = "20,000 generated images, seeds 1,200,000 to 1,219,999; see ../evaluation.json"


def main() -> None:
    options = _options()
    logging.disable(logging.WARNING)  # the quantizer's advice to pre-process, given while pre-processing
    if options.step == "artifacts":
        _artifacts(options.work, options.work / "candidates")
    else:
        _ladders(options.work / "candidates", options.evaluation)


def _artifacts(work: Path, candidates: Path) -> None:
    candidates.mkdir(parents=True, exist_ok=True)
    calibration, _ = load(surface.CALIBRATION_SEEDS[:CALIBRATION_PICTURES], work / "cache")
    pixels, labels = load(surface.VALIDATION_SEEDS[:VALIDATION_PICTURES], work / "cache")
    made = []
    for point in POINTS:
        trained = work / f"{point.name}.onnx"
        if not trained.exists():
            print(f"{point.name}: not trained yet ({trained} is missing), left out")
            continue
        made += [f"{point.name}-{precision}" for precision in ("fp32", "fp16", "int8")]
        finished = candidates / f"{point.name}-int8.onnx"
        if finished.exists() and finished.stat().st_mtime > trained.stat().st_mtime:
            print(f"{point.name}: made before, kept")
            continue
        model = onnx.load(trained)
        onnx.checker.check_model(model, full_check=True)
        shutil.copyfile(trained, candidates / f"{point.name}-fp32.onnx")
        onnx.save(convert_float_to_float16(model, keep_io_types=True), candidates / f"{point.name}-fp16.onnx")
        _quantize(point, trained, candidates, calibration, pixels, labels)
    write(candidates, "defects", made, {}, NOTE)
    print(f"wrote {len(made)} rungs to {candidates}; now: evaluate.py {candidates} --write")


def _quantize(
    point: Point, trained: Path, candidates: Path, calibration: Pixels, pixels: Pixels, labels: Pixels
) -> None:
    """Keeps the calibration method with the better accuracy on the validation pictures."""
    prepared, name = trained.with_suffix(".prepared"), f"{point.name}-int8"
    quant_pre_process(str(trained), str(prepared), skip_symbolic_shape=True)
    accuracies = {}
    for method, (calibrate, extra) in CALIBRATIONS.items():
        trial = trained.parent / f"{name}-{method}"
        trial.mkdir(exist_ok=True)
        quantize_static(
            prepared, trial / f"{name}.onnx", _Reader(calibration, point.side), quant_format=QuantFormat.QDQ,
            per_channel=True, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
            calibrate_method=calibrate, extra_options=extra,
        )  # fmt: skip
        write(trial, "trial", [name], {}, "a trial")
        folder = load_ladder(trial)
        accuracies[method] = float(np.mean(OpenRung(folder, folder.manifest.rung[0]).calls(pixels) == labels))
        print(f"{name}: calibrated by {method}: {accuracies[method]:.4f} on {len(labels):,} validation pictures")
    best = max(accuracies, key=lambda method: accuracies[method])
    shutil.copyfile(trained.parent / f"{name}-{best}" / f"{name}.onnx", candidates / f"{name}.onnx")


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Feeds the calibration pictures, resized and normalized as the rung's `pre` does."""

    def __init__(self, pixels: Pixels, side: int) -> None:
        self._feeds: Iterator[dict[str, Any]] = iter(
            [{"image": _prepared(picture, side)} for picture in pixels]
        )  # fmt: skip

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def _prepared(picture: Pixels, side: int) -> Any:
    small = resize(picture, side, side, method="area").astype(np.float32)
    return np.ascontiguousarray(((small - np.float32(PIXEL_MEAN)) / np.float32(PIXEL_STD)).transpose(2, 0, 1))[None]


def _ladders(candidates: Path, evaluation: Path) -> None:
    """ladder/: the measured front, and the strongest point's fp16 for GPUs. ladder-int8/: INT8 rungs that are not on
    this machine's front, as many as the size limit leaves room for; elsewhere the order may be another one."""
    report = json.loads(evaluation.read_text())
    measured = {r["name"]: r for r in report["rungs"]}
    chosen = front(read(report["rungs"]))
    points = [name.split("-")[0] for name in chosen]
    ladder = [name for name in (chosen[0], points[0] + GPU_PRECISION, *chosen[1:]) if name in measured]
    room = SIZE_LIMIT_BYTES - sum(measured[name]["size_bytes"] for name in ladder)
    spare = []
    others = [f"{point}-int8" for point in points if f"{point}-int8" in measured and f"{point}-int8" not in chosen]
    for name in sorted(others, key=lambda name: measured[name]["size_bytes"]):
        if measured[name]["size_bytes"] <= room:
            spare.append(name)
            room -= measured[name]["size_bytes"]
    for rung in measured.values():
        rung["ladder"] = ""  # measured, but not committed, unless a ladder takes it
    for folder, title, names in (
        (HERE / "ladder", "defects", ladder),
        (HERE / "ladder-int8", "defects-int8", [n for n in others if n in spare]),
    ):
        shutil.rmtree(folder, ignore_errors=True)
        if names:
            _lay(folder, title, names, candidates, measured)
    evaluation.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{SIZE_LIMIT_BYTES - room:,} bytes of artifacts, of at most {SIZE_LIMIT_BYTES:,}")


def _lay(folder: Path, title: str, names: list[str], candidates: Path, measured: dict[str, dict[str, Any]]) -> None:
    folder.mkdir()
    for name in names:
        measured[name]["ladder"] = title
        shutil.copyfile(candidates / f"{name}.onnx", folder / f"{name}.onnx")
    write(folder, title, names, {name: round(measured[name]["accuracy"], 5) for name in names}, NOTE)
    load_ladder(folder)  # raises if the daemon would not take it
    print(f"{title}: {', '.join(names)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("artifacts", "ladders"), help="artifacts: convert and quantize what train.py "
                        "exported; ladders: choose and order the rungs by evaluation.json")  # fmt: skip
    parser.add_argument("--work", type=Path, default=Path("/tmp/defects-train"), help="where train.py exported to")
    parser.add_argument("--evaluation", type=Path, default=HERE / "evaluation.json", help="made by evaluate.py --write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
