"""A page as a browser shows it: Debian's chromium, headless, without a network."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

# In a frame, because a window cannot be narrower than 500 px; the page itself stays as it is, policy included.
_LOOK = """<!doctype html><body style="margin:0">
<iframe src="{uri}" style="border:0; width:{width}px; height:2000px"></iframe>
<script>
const frame = document.querySelector("iframe");
const scrolled = (element) => element.closest(".scroll, .box, .path") !== null;
frame.onload = () => {{
  const page = frame.contentDocument, width = page.documentElement.clientWidth;
  const found = {{
    width,
    scroll_width: page.documentElement.scrollWidth,
    overflowing: [...page.body.querySelectorAll("*")]
      .filter((element) => element.getBoundingClientRect().right > width + 1 && !scrolled(element))
      .map((element) => element.outerHTML.slice(0, 200)),
    missing_images: [...page.images].filter((image) => !image.naturalWidth).length,
    images: page.images.length,
    figures: [...page.querySelectorAll(".js-plotly-plot")].filter((plot) => plot.querySelector(".main-svg")).length,
    requests: frame.contentWindow.performance.getEntriesByType("resource").map((entry) => entry.name),
    text: page.body.innerText,
  }};
  frame.remove();
  document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
}};
</script>
"""


@dataclass(frozen=True)
class Seen:
    """What a page looks like at one width; `console` holds script errors and everything its policy refused."""

    width: int
    scroll_width: int
    overflowing: list[str]
    missing_images: int
    images: int
    figures: int
    requests: list[str]
    text: str
    console: list[str]

    def assert_well(self) -> None:
        assert self.console == []
        assert self.requests == []
        assert self.missing_images == 0
        assert self.overflowing == []
        assert self.scroll_width <= self.width


def look(page: Path, width_px: int, scratch: Path) -> Seen:
    """Return what chromium shows of a page in so many pixels; skips the test where there is no chromium."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: pages cannot be looked at")
    frame = scratch / f"look-{width_px}.html"
    frame.write_text(_LOOK.format(uri=page.absolute().as_uri(), width=width_px), encoding="utf-8")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--allow-file-access-from-files", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr"]
    command += [f"--user-data-dir={scratch / 'profile'}", "--virtual-time-budget=30000", "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    found = re.search(r"FOUND(.*)END", done.stdout, re.DOTALL)
    assert found, done.stderr
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(**json.loads(html.unescape(found.group(1))), console=console)
