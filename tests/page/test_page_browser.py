"""The page of a run in Chromium: no errors, fits every width, zooms, and reads values off."""

import pytest

from tests.page import runs
from tests.page.browser import chromium
from tests.page.test_page import drawn

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("quick_compilation")]

PLOT = "document.querySelector('.plot[data-chart={}]')"


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return runs.train(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def long_run(trained, tmp_path_factory):
    """Return the page of a run of 100 epochs whose loss is 1 / step."""
    workdir = runs.copy(trained, tmp_path_factory.mktemp("long") / "a")
    lines = [runs.record(step, step / 10) for step in range(1, 1001)]
    lines[500]["loss"] = None
    lines += [
        {"step": 10 * epoch, "epoch": epoch, "split": "validation", "loss": 0.5, "top1_error": 0.25}
        for epoch in range(1, 101)
    ]
    runs.write_metrics(workdir, lines)
    drawn(workdir)
    return workdir / "index.html"


def box(browser, chart="loss"):
    """Return left, top, width and height of the curves of a chart, scrolled into sight."""
    browser.evaluate(
        f"{PLOT.format(chart)}.scrollIntoView({{block: 'center', behavior: 'instant'}})"
    )
    left, top, width, height = browser.evaluate(
        f"(() => {{ const b = {PLOT.format(chart)}.getBoundingClientRect();"
        "return [b.left, b.top, b.width, b.height] })()"
    )
    return left + 56, top, width - 64, height


def epochs(browser, chart="loss"):
    """Return the numbers below a chart."""
    texts = browser.evaluate(
        f"[...{PLOT.format(chart)}.querySelectorAll('.epoch')].map(t => t.textContent)"
    )
    return [float(text) for text in texts]


def legend(browser, chart="loss"):
    """Return the values of a chart's curves by their names, and where they are."""
    names = browser.evaluate(
        f"[...{PLOT.format(chart)}.parentNode.querySelectorAll('.legend li')]"
        ".map(li => [...li.childNodes].filter(n => n.nodeName !== 'svg').map(n => n.textContent))"
    )
    values = {name[0]: name[1] for name in names if len(name) == 2}
    (where,) = [name[0] for name in names if len(name) == 1]
    return values, where


def check(browser):
    """Check that nothing went wrong, nothing was fetched, and nothing is cut off at the right."""
    assert browser.problems == []
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}
    assert len([url for url in browser.requests if url.startswith("file:")]) == 1
    widths = browser.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]
    beyond = browser.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre, svg')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 99))"
    )
    assert beyond == []
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert browser.evaluate(broken) == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1400, 1920])
def test_it_fits_every_window(width, dark, trained, long_run, browser):
    for page in (trained / "index.html", long_run):
        browser.open(page, width, dark)
        check(browser)
        browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        check(browser)
        assert browser.evaluate("document.querySelectorAll('.plot path.curve').length") >= 6


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out(dark, trained, browser):
    """WCAG's contrast of text is at least 4.5 to 1, on what is behind it."""
    browser.open(trained / "index.html", 1400, dark)
    low = browser.evaluate(CONTRAST)
    assert low == []


CONTRAST = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const pixel = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const color = pixel(getComputedStyle(e).backgroundColor);
      if (color[3] === 255) return color;
    }
  };
  const low = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('script, style, noscript')) continue;
    const style = getComputedStyle(e), text = e.closest('svg') ? style.fill : style.color;
    const pair = [light(pixel(text)), light(behind(e))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5) low.push(`${e.outerHTML.slice(0, 80)} ${ratio.toFixed(2)}`);
  }
  return low;
})()
"""


def test_dragging_zooms_all_charts_and_a_double_click_resets(long_run, browser):
    browser.open(long_run, 1400)
    whole = epochs(browser)
    assert (min(whole), max(whole)) == (0, 100)
    left, top, width, height = box(browser)
    browser.drag(left + 0.25 * width, left + 0.5 * width, top + height / 2)
    for chart in ("loss", "top1_error", "learning_rate", "images_per_second"):
        shown = epochs(browser, chart)
        assert min(shown) >= 24.9, chart
        assert max(shown) <= 50.1, chart
    browser.double_click(left + width / 2, top + height / 2)
    assert epochs(browser) == whole
    check(browser)


def test_dragging_to_the_left_zooms_as_well_and_a_click_does_not(long_run, browser):
    browser.open(long_run, 1400)
    whole = epochs(browser)
    left, top, width, height = box(browser)
    browser.drag(left + 0.5 * width, left + 0.502 * width, top + height / 2)
    assert epochs(browser) == whole
    browser.drag(left + 0.5 * width, left + 0.25 * width, top + height / 2)
    assert max(epochs(browser)) <= 50.1


def test_the_mouse_reads_values_off(long_run, browser):
    browser.open(long_run, 1400)
    values, where = legend(browser)
    assert values["training, each record"] == "0.001"
    assert where == "Latest in sight: epoch 100, step 1,000"
    left, top, width, height = box(browser)
    browser.mouse("mouseMoved", left + 0.2 * width, top + height / 2)
    values, where = legend(browser)
    assert where == "At the cursor: epoch 20, step 200"
    assert values["training, each record"] == "0.005"
    assert values["validation"] == "0.5"
    values, _ = legend(browser, "top1_error")  # the cursor is in all charts
    assert values["validation"] == "25%"


def test_the_keyboard_reads_values_off_and_zooms(long_run, browser):
    browser.open(long_run, 1400)
    whole = epochs(browser)
    browser.evaluate(f"{PLOT.format('loss')}.focus()")
    browser.key("Home")
    browser.key("ArrowRight")
    assert legend(browser)[1] == "At the cursor: epoch 0.1, step 1"
    browser.key("ArrowRight")
    assert legend(browser)[0]["training, each record"] == "0.5"
    spoken = browser.evaluate(f"{PLOT.format('loss')}.getAttribute('aria-label')")
    assert "training, each record 0.5" in spoken
    browser.key("+")
    assert max(epochs(browser)) < 60
    browser.key("Escape")
    assert epochs(browser) == whole
    browser.key("End")
    browser.key("ArrowLeft")
    assert legend(browser)[1].startswith("At the cursor: epoch 99.")


def test_touch_reads_values_off_and_buttons_zoom(long_run, browser):
    browser.open(long_run, 360)
    whole = epochs(browser)
    left, top, width, height = box(browser)
    point = [{"x": left + 0.4 * width, "y": top + height / 2}]
    browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=point)
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    assert legend(browser)[1].startswith("At the cursor: epoch 40")
    button = f"{PLOT.format('loss')}.parentNode.querySelector('button[title=\"{{}}\"]')"
    browser.evaluate(f"{button.format('Zoom in')}.click()")
    assert max(epochs(browser)) < 80
    browser.evaluate(f"{button.format('Show all')}.click()")
    assert epochs(browser) == whole
    check(browser)


def test_a_logarithmic_scale_shows_powers_of_ten(long_run, browser):
    browser.open(long_run, 1400)
    button = f"[...{PLOT.format('loss')}.parentNode.querySelectorAll('button')][0]"
    assert browser.evaluate(f"{button}.getAttribute('aria-pressed')") == "false"
    browser.evaluate(f"{button}.click()")
    assert browser.evaluate(f"{button}.getAttribute('aria-pressed')") == "true"
    texts = browser.evaluate(
        f"[...{PLOT.format('loss')}.querySelectorAll('text')].map(t => t.textContent)"
    )
    assert {"0.001", "0.01", "0.1", "1"} <= set(texts)


def test_a_value_that_is_not_finite_is_a_gap(long_run, browser):
    browser.open(long_run, 1400)
    curve = browser.evaluate(
        f"{PLOT.format('loss')}.querySelector('.curve.faint').getAttribute('d')"
    )
    assert curve.count("M") == 2
    assert "NaN" not in curve
    browser.evaluate(f"{PLOT.format('loss')}.focus()")
    left, top, width, height = box(browser)
    browser.mouse("mouseMoved", left + 0.501 * width, top + height / 2)
    assert legend(browser)[0]["training, each record"] == "not finite"


@pytest.mark.parametrize("loss", [0.5, 0.0, None], ids=["point", "zero", "nan"])
def test_a_run_of_one_record(loss, trained, browser, tmp_path):
    workdir = runs.copy(trained, tmp_path / "a")
    runs.write_metrics(workdir, [runs.record(1, 0.01, loss=loss)])
    drawn(workdir)
    browser.open(workdir / "index.html", 768)
    check(browser)
    plot = PLOT.format("loss")
    circles = browser.evaluate(f"{plot}.querySelectorAll('circle').length")
    assert circles == (0 if loss is None else 2)
    text = browser.evaluate(f"{plot}.textContent")
    assert ("No finite value" in text) == (loss is None)
    assert "NaN" not in browser.evaluate("document.getElementById('charts').innerHTML")
    browser.evaluate(f"{plot}.focus()")
    for key in ("ArrowRight", "ArrowLeft", "+", "+", "-", "Escape"):
        browser.key(key)
    check(browser)


def test_names_do_not_become_markup(trained, browser):
    browser.open(trained / "index.html", 1400)
    check(browser)
    shown = browser.evaluate("document.querySelector('main').innerText")
    assert runs.SCRIPT in shown
    assert runs.ARABIC in shown
    assert browser.evaluate("document.querySelectorAll('script').length") == 2
