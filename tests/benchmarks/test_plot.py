"""The bar chart of the benchmarks."""

from __future__ import annotations

from xml.etree import ElementTree

from benchmarks.plot import bars


def test_bars_are_as_long_as_their_values_and_names_are_escaped() -> None:
    picture = ElementTree.fromstring(bars("Speed <now>", "events/s", {"one": 100.0, "two & half": 25.0}))
    widths = [float(r.attrib["width"]) for r in picture.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[0] == 4 * widths[1]
    texts = [t.text for t in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "Speed <now>, events/s" in texts
    assert "two & half" in texts
