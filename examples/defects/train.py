"""Trains the points of net.py on generated pictures and exports each as an fp32 ONNX model.

seeds -> pictures.load -> turned, mirrored, resized batches -> AdamW, one cycle, bfloat16 -> averaged weights
      -> logit of `ok` shifted on the validation seeds -> <work>/<point>.onnx

The pictures stay on the processor: no GPU is needed. Install the CPU build of PyTorch (see README.md); a plain
`pip install torch` fetches several GB of CUDA libraries.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from net import POINTS, Net, Point
from numpy.typing import NDArray
from pictures import Labels, Pixels, load
from torch import Tensor, nn

from flyball.demo import surface

BATCH = 64
POLISH_RATE = 1.2e-3
OPSET = 17  # the newest that ONNX Runtime 1.23 (JetPack 6) and older ones all run


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    training = surface.TRAINING_SEEDS[: options.pictures]
    validation = surface.VALIDATION_SEEDS[: options.validation]
    pixels, labels = load(training, options.work / "cache")
    held_pixels, held_labels = load(validation, options.work / "cache")
    for point in POINTS:
        if options.points and point.name not in options.points:
            continue
        net = _train(point, pixels, labels, options.effort, options.work)
        logits = predict(net, held_pixels, point.side)
        shift = ok_shift(logits, held_labels, options.false_alarm)
        logits[:, 0] += shift
        with torch.no_grad():
            net.head.bias[0] += shift
        print(f"{point.name}: validation {_summary(logits, held_labels)}", flush=True)
        torch.save(net.state_dict(), options.work / f"{point.name}.pt")
        _export(net, point, options.work / f"{point.name}.onnx")


def _train(point: Point, pixels: Pixels, labels: Labels, effort: float, work: Path) -> Net:
    torch.manual_seed(7)
    net = Net(point)
    if point.start:
        net.load_state_dict(torch.load(work / f"{point.start}.pt", weights_only=True))
    net = net.to(memory_format=torch.channels_last)
    pixels, labels = shrunk(pixels[: point.pictures], point.side), labels[: point.pictures]
    net = _cycle(net, point, pixels, labels, int(point.samples * effort) // BATCH, point.rate)
    if point.polish:
        whole = replace(point, course=((1.0, point.side),), last_batch=BATCH)
        net = _cycle(net, whole, pixels, labels, int(point.polish * effort) // BATCH, POLISH_RATE)
    return net.eval()


def _cycle(net: Net, point: Point, pixels: Pixels, labels: Labels, steps: int, rate: float) -> Net:
    """One rise and fall of the learning rate; gives the weights averaged over its last few hundred steps."""
    net.train()
    average = copy.deepcopy(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.15)
    random, began, order, running = np.random.default_rng(7), time.monotonic(), np.zeros(0, np.int64), 0.0
    for step in range(steps):
        side = _side_at(step / steps, point)
        size = BATCH if side < point.side else point.last_batch
        if len(order) < size:
            order = random.permutation(len(labels))
        chosen, order = np.sort(order[:size]), order[size:]  # sorted: the disk is read forwards
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(normalized(_augment(torch.from_numpy(pixels[chosen]), random), side))
        loss = nn.functional.cross_entropy(logits.float(), torch.from_numpy(labels[chosen]).long())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        _follow(average, net, keep=min(0.995, step / (step + 10)))
        running += 0.02 * (loss.item() - running) if step else loss.item()
        if step % 100 == 0:
            print(f"  {point.name}: step {step} of {steps}, loss {running:.4f}, {time.monotonic() - began:.0f} s",
                  file=sys.stderr, flush=True)  # fmt: skip
    return average


def _side_at(progress: float, point: Point) -> int:
    for share, side in point.course:
        if progress < share:
            return side
        progress -= share
    return point.side


def _follow(average: Net, net: Net, keep: float) -> None:
    """Averages the weights over the last few hundred steps: less noise in the last bits of accuracy."""
    with torch.no_grad():
        for mean, value in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - keep)


def _augment(batch: Tensor, random: np.random.Generator) -> Tensor:
    """A surface has no upside: one of its eight turned and mirrored views."""
    if random.integers(2):
        batch = batch.transpose(1, 2)
    flips = [axis for axis in (1, 2) if random.integers(2)]
    return batch.flip(flips) if flips else batch


def shrunk(pixels: Pixels, side: int) -> Pixels:
    """All the pictures at the side of the point, once, in memory: at 112 pixels and below resizing costs more than
    the net."""
    if side == pixels.shape[1]:
        return pixels
    small = np.empty((len(pixels), side, side, 3), np.uint8)
    for at in range(0, len(pixels), 200):
        small[at : at + 200] = _resized(torch.from_numpy(pixels[at : at + 200]), side).permute(0, 2, 3, 1).byte()
    return small


def normalized(batch: Tensor, side: int) -> Tensor:
    """uint8 [N,H,W,3] -> float [N,3,side,side] in -1..1."""
    return ((_resized(batch, side) - 127.5) / 127.5).contiguous(memory_format=torch.channels_last)


def _resized(batch: Tensor, side: int) -> Tensor:
    """The box filter of the rung's `resize` step, for a batch; float32 rounds one pixel in 500 the other way."""
    x = batch.permute(0, 3, 1, 2).float()
    if side == x.shape[-1]:
        return x
    across = torch.from_numpy(_box_filter(x.shape[-1], side))
    return torch.round(across @ x @ across.T)


def _box_filter(size: int, side: int) -> NDArray[np.float32]:
    edges = np.arange(side + 1) * (size / side)
    cells = np.arange(size)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return (np.clip(overlap, 0, None) * (side / size)).astype(np.float32)


def predict(net: Net, pixels: Pixels, side: int) -> Tensor:
    with torch.inference_mode():
        parts = [net(normalized(torch.from_numpy(pixels[at : at + 100]), side)) for at in range(0, len(pixels), 100)]
    return torch.cat(parts)


def ok_shift(logits: Tensor, labels: Labels, false_alarm: float) -> float:
    """What to add to the logit of `ok` so that at most `false_alarm` of the sound pictures are called defective.

    Never negative: a net that raises fewer false alarms than allowed is left as it is."""
    sound = logits[torch.from_numpy(labels == 0)]
    margin = sound[:, 1:].max(dim=1).values - sound[:, 0]
    return max(0.0, float(torch.quantile(margin, 1 - false_alarm)))


def _summary(logits: Tensor, labels: Labels) -> str:
    called, true = logits.argmax(dim=1).numpy(), labels
    sound = true == 0
    return (
        f"accuracy {np.mean(called == true):.4f}, false alarms {np.mean(called[sound] != 0):.4f}, "
        f"defects found {np.mean(called[~sound] != 0):.4f}\n{np.histogram2d(true, called, bins=6)[0].astype(int)}"
    )


def _export(net: Net, point: Point, path: Path) -> None:
    """The TorchScript exporter: it folds BatchNorm and writes one file; the newer one splits weights off."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.to(memory_format=torch.contiguous_format), (torch.zeros(1, 3, point.side, point.side),), str(path),
            opset_version=OPSET, input_names=["image"], output_names=["logits"], dynamo=False,
        )  # fmt: skip
    print(f"{point.name}: wrote {path}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("points", nargs="*", help=f"which to train (default: all of {[p.name for p in POINTS]})")
    parser.add_argument("--work", type=Path, default=Path("/tmp/defects-train"), help="pictures and models go here")
    parser.add_argument("--pictures", type=int, default=60_000, help="training pictures to draw (150,528 bytes each)")
    parser.add_argument("--validation", type=int, default=4_000, help="validation pictures")
    parser.add_argument("--effort", type=float, default=1.0, help="0.1 trains a tenth as long: a trial of the pipeline")
    parser.add_argument("--false-alarm", type=float, default=0.003, help="share of sound validation pictures that may "
                        "be called defective; the logit of `ok` is shifted to meet it")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch")
    return parser.parse_args()


if __name__ == "__main__":
    main()
