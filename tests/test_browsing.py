"""That looking at a page finds what is wrong with one."""

from pathlib import Path

from browsing import look

WRONG = """<!doctype html>
<meta http-equiv="Content-Security-Policy" content="script-src 'unsafe-inline'; img-src data:">
<body style="margin:0"><p>seen</p><div style="width:500px">wide</div><img src="https://example.org/a.png">
<div class="scroll" style="overflow:auto"><p style="width:600px">scrolled</p></div><script>nonsense()</script>"""


def test_a_page_in_which_everything_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "wrong.html"
    page.write_text(WRONG, encoding="utf-8")
    narrow = look(page, 390, tmp_path)
    assert (narrow.width, narrow.scroll_width) == (390, 500)
    assert narrow.overflowing == ['<div style="width:500px">wide</div>']
    assert (narrow.images, narrow.missing_images) == (1, 1)
    assert any("nonsense is not defined" in line for line in narrow.console)
    assert any("example.org" in line for line in narrow.console)
    assert narrow.text.startswith("seen")
    wide = look(page, 700, tmp_path)
    assert (wide.scroll_width, wide.overflowing) == (700, [])
