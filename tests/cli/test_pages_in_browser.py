"""The pages of `flyball replay` and of `flyball bench` in a real browser: what is drawn, and what it complains of."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "measure"))

from measured_rungs import profile, rung  # its folder is another room's

from flyball.governor.replay import profiles, standard
from flyball.governor.replay.trace import save
from flyball.measure.page import page as bench_page

FLYBALL = Path(sys.executable).with_name("flyball")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# The pages have no script of their own: this one is put into a copy, to say what the browser made of it.
LOOK = """<script>
const box = e => { const b = e.getBoundingClientRect(); return [b.width, b.height]; };
const found = {
  plots: [...document.querySelectorAll("figure > svg")].map(svg => ({
    size: box(svg),
    lines: [...svg.querySelectorAll("path.line, polyline.line")].map(line => line.getTotalLength()),
    marks: svg.querySelectorAll("circle, rect.bar").length,
    outside: [...svg.querySelectorAll("text, path, circle, rect")].filter(e => {
      const b = e.getBoundingClientRect(), s = svg.getBoundingClientRect();
      return b.right > s.right + 1 || b.left < s.left - 1 || b.bottom > s.bottom + 1 || b.top < s.top - 1;
    }).map(e => e.textContent || e.outerHTML.slice(0, 80)),
  })),
  headings: [...document.querySelectorAll("h2")].map(h => h.textContent),
  rows: document.querySelector("table").rows.length,
  moved: [...document.querySelectorAll(".wide")].map(e => e.scrollWidth - e.clientWidth),
  wider: document.documentElement.scrollWidth - window.innerWidth,
  ink: getComputedStyle(document.body).color,
  paper: getComputedStyle(document.body).backgroundColor,
};
const place = document.createElement("pre");
place.id = "found";
place.textContent = JSON.stringify(found);
document.body.append(place);
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no browser is on this machine: expected chromium")
    return found


@pytest.fixture
def replayed(tmp_path: Path) -> Path:
    trace, file = tmp_path / "short.jsonl", tmp_path / "replay.html"
    save(standard.standard("cpu-bursts", "defects", profiles.STAND_INS["defects"], 2, minutes=4), trace)
    done = subprocess.run([FLYBALL, "replay", trace, "--compare", "--html", file], capture_output=True, text=True,
                          timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return file


def run(browser: str, file: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [
        browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions",
        "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={file.parent}/browser",
        "--enable-logging=stderr", "--virtual-time-budget=2000", *arguments, file.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def look(browser: str, file: Path, width: int = 1200, *arguments: str) -> tuple[dict[str, Any], list[str]]:
    """What the page looks like from inside, and what the console says."""
    copy = file.with_name("copy.html")
    text = file.read_text()
    assert "<script" not in text
    copy.write_text(text.replace("</body>", f"{LOOK}</body>"))
    done = run(browser, copy, f"--window-size={width},900", "--dump-dom", *arguments)
    assert done.returncode == 0, done.stderr
    inside = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert inside is not None, done.stderr
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    found: dict[str, Any] = json.loads(inside[1])
    return found, console


def test_the_page_of_a_replay(browser: str, replayed: Path) -> None:
    found, console = look(browser, replayed)
    assert console == []
    assert found["headings"][:7] == ["Latency", "Missed", "Rung", "Temperature", "Power", "Requests", "Contention"]
    assert len(found["plots"]) == 7
    for heading, plot in zip(found["headings"], found["plots"], strict=False):
        width, height = plot["size"]
        assert width > 600, heading
        assert height > 150, heading
        assert plot["outside"] == [], heading
    for plot in found["plots"][:5]:
        assert len(plot["lines"]) >= 5, "one for each policy that is drawn"
        assert min(plot["lines"]) > 100, "and each goes across the plot"
    assert found["rows"] > 8, "the head, and a row for each policy"
    assert found["wider"] <= 0, "only a table itself may be moved sideways"
    assert found["headings"][-1] == "Changes of rung: governor"
    assert found["moved"][0] <= 0, "every column of the scores is seen"
    assert found["moved"][-1] <= 0, "reasons are broken into lines, not to be moved to"


def test_the_page_of_a_what_if(browser: str, tmp_path: Path) -> None:
    file = tmp_path / "what-if.html"
    wishes = ("--deadline", "20ms", "--ambient", "45", "--power-cap", "7W")
    done = subprocess.run([FLYBALL, "what-if", "heat-ramp", *wishes, "--html", file], capture_output=True, text=True,
                          timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, console = look(browser, file)
    assert console == []
    assert found["rows"] == 3
    assert found["moved"][0] <= 0, "every column of the scores is seen"


def test_a_phone_sees_all_of_it_without_moving_the_page(browser: str, replayed: Path) -> None:
    found, console = look(browser, replayed, 500)
    assert console == []
    assert found["wider"] <= 0
    assert min(plot["size"][0] for plot in found["plots"]) > 400


def test_the_page_of_a_measurement(browser: str, tmp_path: Path) -> None:
    file = tmp_path / "bench.html"
    ladder = (rung("big", 14.0, 0.996), rung("mid", 1.8, 0.990), rung("small", 0.6, 0.942))
    file.write_text(bench_page(profile(*ladder)))
    found, console = look(browser, file)
    assert console == []
    assert len(found["plots"]) == 3
    assert [plot["outside"] for plot in found["plots"]] == [[], [], []]
    assert found["plots"][0]["marks"] == 3
    assert found["wider"] <= 0


def test_a_complaint_of_the_browser_would_be_seen(browser: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.html"
    text = bench_page(profile(rung("big", 14.0, 0.996), rung("mid", 1.8, 0.990)))
    file.write_text(re.sub(r'<circle cx="[0-9.]+"', '<circle cx="nan"', text, count=1))
    _, console = look(browser, file)
    assert console != []
