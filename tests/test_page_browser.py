"""The page in a real browser: keys, pointers, sizes, colours, and no way out to the network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

import browser
import pages
import talk
from browser import Tab
from test_journey_report import CASES, in_pieces, lost, several
from vxlab.packet import Payload
from vxlab.report import page
from vxlab.trace.journey import Stop, Trace

pytestmark = pytest.mark.skipif(bool(browser.MISSING), reason=browser.MISSING or "all there")

PHONE = (360, 740)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """One browser for all tests here."""
    with browser.started(tmp_path_factory.mktemp("browser")) as driver:
        yield Tab(driver)


def opened(tab: Tab, where: Path, found: Trace, **how: Any) -> Tab:
    file = where / "trace.html"
    page.write(file, found, talk.TALK, command=pages.COMMAND)
    tab.open(file, **how)
    return tab


def headers(stop: Stop) -> int:
    """Bytes of headers in a stop's first frame."""
    layers = stop.pieces[0].packet.layers
    return sum(layer.length for layer in layers if not isinstance(layer, Payload))


@pytest.mark.parametrize("case", CASES)
def test_it_loads_without_a_word_and_without_a_request(tab: Tab, tmp_path: Path, case: str) -> None:
    """Nothing on the console, nothing asked for but the file itself."""
    opened(tab, tmp_path, CASES[case]())
    tab.until("return document.readyState === 'complete'")
    tab.press(Keys.END)
    assert tab.complaints == []
    assert tab.requests == [(tmp_path / "trace.html").as_uri()]


def test_a_page_that_asks_for_something_is_caught(tab: Tab, tmp_path: Path) -> None:
    """The test above sees requests and complaints; and the policy stops what would run."""
    file = tmp_path / "trace.html"
    html = page.page(pages.ping(), talk.TALK, command=pages.COMMAND)
    bad = '<img src="https://vxlab.invalid/x.png"><script>window.hurt = 1</script><main>'
    file.write_text(html.replace("<main>", bad), encoding="utf-8")
    tab.open(file)
    assert len(tab.complaints) == 2
    assert tab.run("return window.hurt") is None


def test_by_keyboard_through_all_hops(tab: Tab, tmp_path: Path) -> None:
    """Each hop shows its own name, numbers, headers and bytes; 42 bytes become 92 and 42 again."""
    found = pages.ping()
    opened(tab, tmp_path, found)
    sizes, heights = [], []
    stops = [stop for _, stop in pages.shown(found)]
    for number, stop in enumerate(stops, 1):
        assert tab.text("#place") == f"{number} / {len(stops)}"
        assert tab.text("#name").split() == [
            *(stop.hop.interface, stop.direction, "on", stop.hop.place)
        ]
        assert tab.text("#headers") == f"{headers(stop)} bytes"
        assert tab.text("#length") == f"{stop.frames[0].frame.length} bytes"
        assert "".join(tab.texts("#hex .byte")) == stop.frames[0].frame.data.hex()
        rows = tab.texts("#outer.open .name, #rows .name")
        assert len(rows) == len(stop.frames[0].packet.layers)
        facts = [f"{stop.since_start:.1f} µs", f"{stop.frames[0].ip_length} bytes"]
        assert set(facts) <= set(tab.texts("#facts dd"))
        assert tab.texts("#changes li") == [c.text.replace(" -> ", " → ") for c in stop.changes]
        assert tab.texts("#why .entry") == [entry.text for entry in stop.why]
        sizes.append(headers(stop))
        heights.append(sum(tab.find(part).size["height"] for part in ("#outer", "#rows")))
        tab.press(Keys.ARROW_RIGHT)
    assert sizes == [42] * 4 + [92] * 2 + [42] * 8 + [92] * 2 + [42] * 4
    assert [height > heights[0] for height in heights] == [size == 92 for size in sizes]
    assert tab.text("#place") == "20 / 20"
    tab.press(Keys.ARROW_LEFT)
    assert tab.text("#place") == "19 / 20"
    tab.press(Keys.HOME)
    assert (tab.text("#place"), tab.find("#previous").is_enabled()) == ("1 / 20", False)
    tab.press(Keys.END)
    assert (tab.text("#place"), tab.find("#next").is_enabled()) == ("20 / 20", False)


def test_headers_that_are_gone_are_gone_for_the_keyboard(tab: Tab, tmp_path: Path) -> None:
    """While the stack shrinks, nobody gets into what is being taken away."""
    opened(tab, tmp_path, pages.ping())
    enter = "const row = document.querySelector('#outer button'); row.focus();"
    enter += "return document.activeElement === row"
    for _ in range(4):
        tab.press(Keys.ARROW_RIGHT)
    assert (tab.text("#name").split()[0], tab.run(enter)) == ("eth0", True)
    tab.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert (tab.text("#name").split()[0], tab.run(enter)) == ("flannel.1", False)


def test_the_picture_shows_where_the_packet_is(tab: Tab, tmp_path: Path) -> None:
    """At the hop's station, with a stripe for each header, and the path behind it lit up."""
    opened(tab, tmp_path, pages.ping())
    for _ in range(4):
        tab.press(Keys.ARROW_RIGHT)
    spot = "document.querySelector('.station.here circle')"
    x, y = tab.run(f"const c = {spot}; return [c.getAttribute('cx'), c.getAttribute('cy')]")
    assert tab.find("#train").get_attribute("transform") == f"translate({x},{y})"
    assert tab.find(".station.here").get_attribute("data-hop") == "node01:eth0"
    assert len(tab.all("#train rect:not(.shell)")) == 8
    assert len(tab.all(".station.seen")) == 5
    tab.press(Keys.HOME)
    assert len(tab.all("#train rect:not(.shell)")) == 4


def test_the_packet_moves_where_motion_is_welcome(tab: Tab, tmp_path: Path) -> None:
    """Over points between two stations, until it is there; without a wait where it is not."""
    opened(tab, tmp_path, pages.ping(), motion=True)
    before = tab.find("#train").get_attribute("transform")
    tab.run(
        """
        window.ways = new Set();
        const train = document.getElementById("train");
        new MutationObserver(() => window.ways.add(train.getAttribute("transform")))
          .observe(train, { attributes: true });
        """
    )
    tab.press(Keys.ARROW_RIGHT)
    circle = "document.querySelector('.station.here circle')"
    tab.until(
        f"const c = {circle}; return document.getElementById('train').getAttribute('transform')"
        " === `translate(${c.getAttribute('cx')},${c.getAttribute('cy')})`"
    )
    assert tab.run("return window.ways.size") > 1
    assert tab.find("#train").get_attribute("transform") != before


def test_play_goes_to_the_end_and_stops(tab: Tab, tmp_path: Path) -> None:
    """The space bar starts it; the button says what it does."""
    opened(tab, tmp_path, pages.gateway())
    tab.run("document.getElementById('speed').value = '4'")
    tab.run("document.getElementById('speed').dispatchEvent(new Event('change'))")
    assert tab.find("#play").get_attribute("aria-label") == "play"
    tab.press(" ")
    assert tab.find("#play").get_attribute("aria-label") == "pause"
    tab.until("return document.getElementById('place').textContent === '6 / 6'")
    tab.until("return document.getElementById('play').ariaLabel === 'play'")


def test_a_pause_stays_one(tab: Tab, tmp_path: Path) -> None:
    """Pressing space again, or going on by hand, ends the playing."""
    opened(tab, tmp_path, pages.ping())
    tab.press(" ", " ")
    assert tab.find("#play").get_attribute("aria-label") == "play"
    tab.press(" ", Keys.ARROW_RIGHT)
    assert (tab.find("#play").get_attribute("aria-label"), tab.text("#place")) == ("play", "2 / 20")


def test_header_field_and_bytes_are_one(tab: Tab, tmp_path: Path) -> None:
    """A click on a byte picks its field and header, a click on those picks their bytes."""
    opened(tab, tmp_path, pages.ping())
    picked = "#hex .byte.pick"
    tab.find("[data-byte='27']").click()
    assert tab.text("#picked") == "IPv4, source address: 10.5.1.10"
    assert tab.texts(picked) == ["0a", "05", "01", "0a"]
    assert tab.text("#stack [aria-pressed=true] .name") == "IPv4"
    assert tab.text("#fields [aria-pressed=true] .field") == "source address"
    assert len(tab.all("#hex .byte.on")) == 20
    tab.find("#rows button").click()
    assert (tab.texts(picked), len(tab.all("#hex .byte.on"))) == ([], 14)
    tab.all("#fields button")[1].click()
    assert tab.text("#picked") == "Ethernet, source MAC: 02:00:00:00:40:01"
    assert tab.texts(picked) == ["02", "00", "00", "00", "40", "01"]


def test_bytes_and_headers_by_keyboard(tab: Tab, tmp_path: Path) -> None:
    """Arrow keys walk over the bytes and down the lists, and do not leave the hop."""
    opened(tab, tmp_path, pages.ping())
    tab.run("document.getElementById('hex').focus()")
    tab.press(Keys.HOME, Keys.ARROW_RIGHT)
    assert tab.text("#picked").startswith("Ethernet, destination MAC")
    tab.press(Keys.ARROW_DOWN)
    assert tab.text("#picked") == "IPv4, total length: 84 bytes"
    tab.press(Keys.END)
    assert tab.text("#picked") == "data, data: 56 bytes"
    assert tab.text("#place") == "1 / 20"
    tab.run("document.querySelector('#rows button').focus()")
    tab.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert tab.text("#fields-of") == "ICMP: 8 bytes"


#: The focus: the control, or the list that it is in; and whether one sees that it is there.
FOCUS = """
  const at = document.activeElement;
  const outlined = getComputedStyle(at).outlineStyle !== "none";
  return [at.id || at.closest("[id]")?.id || at.className, outlined];
"""


def test_tab_reaches_everything_and_shows_where_it_is(tab: Tab, tmp_path: Path) -> None:
    """Each control in the order of the page, with an outline round it."""
    opened(tab, tmp_path, pages.ping())
    reached: list[str] = []
    while "tables" not in reached:
        tab.press(Keys.TAB)
        name, outlined = tab.run(FOCUS)
        assert outlined, name
        reached.append(name)
        assert len(reached) < 100
    # At the first hop there is none before it.
    assert list(dict.fromkeys(reached)) == [
        *("skip", "theme", "play", "next", "last", "speed"),
        *("legs", "chips", "rows", "fields", "hex", "tables"),
    ]
    assert (reached.count("chips"), reached.count("rows"), reached.count("fields")) == (10, 4, 12)


def test_the_focus_goes_with_the_hop(tab: Tab, tmp_path: Path) -> None:
    """Whoever is in the list of hops stays in it."""
    opened(tab, tmp_path, pages.ping())
    tab.run("document.querySelector('#chips [aria-current]').focus()")
    tab.press(Keys.ARROW_RIGHT)
    assert tab.run("return document.activeElement.getAttribute('aria-current')") == "step"
    assert tab.run("return document.activeElement.textContent") == "vethlocal"


@pytest.mark.parametrize("case", CASES)
def test_a_phone_needs_no_sideways_scroll(tab: Tab, tmp_path: Path, case: str) -> None:
    """360 pixels wide, at every hop, with the tables open; and a finger hits each button."""
    opened(tab, tmp_path, CASES[case](), size=PHONE)
    tab.run("document.getElementById('tables').open = true")
    while True:
        assert tab.run("return document.documentElement.scrollWidth") == PHONE[0]
        if not tab.find("#next").is_enabled():
            break
        tab.run("document.getElementById('next').click()")
    small = """
      return [...document.querySelectorAll("button, select")]
        .filter((e) => e.getClientRects().length && !e.closest("[inert]"))
        .filter((e) => e.offsetWidth < 24 || e.offsetHeight < 24)
        .map((e) => e.outerHTML)
    """
    assert tab.run(small) == []
    assert tab.run("return document.getElementById('player').getBoundingClientRect().bottom") == 740


def test_a_sideways_scroll_would_be_seen(tab: Tab, tmp_path: Path) -> None:
    """The test above can fail: something wider than a phone shows."""
    opened(tab, tmp_path, pages.ping(), size=PHONE)
    tab.run("document.getElementById('name').style.width = '500px'")
    assert tab.run("return document.documentElement.scrollWidth") > PHONE[0]


#: Every visible text whose contrast is under that of WCAG 2.1 AA (4.5, or 3 for large text). The
#: colours are painted, over all that is behind them, and read back.
CONTRAST = """
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  const painted = (colours) => {
    for (const colour of ["white", ...colours]) {
      brush.fillStyle = colour;
      brush.fillRect(0, 0, 1, 1);
    }
    return [...brush.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map(
      (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const backs = (element) => {
    const found = [];
    for (let at = element; at; at = at.parentElement) {
      found.unshift(getComputedStyle(at).backgroundColor);
    }
    return found;
  };
  const ratio = (text, behind) => {
    const [one, other] = [light(painted([...behind, text])), light(painted(behind))];
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  };
  const shapes = [...document.querySelectorAll("#picture .box, .station.here .touch")]
    .map((shape) => getComputedStyle(shape).fill);
  const bad = [];
  let seen = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    const hidden = "script, title, .unseen, .skip, :disabled, [inert], option, noscript";
    if (!walk.currentNode.data.trim() || element.closest(hidden)) continue;
    if (!element.getClientRects().length) continue;
    seen += 1;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const drawn = element.closest("svg");
    const behind = drawn ? shapes.map((shape) => [...backs(drawn), shape]) : [backs(element)];
    for (const each of behind) {
      const found = ratio(drawn ? style.fill : style.color, each);
      const name = element.getAttribute("class") ?? element.id;
      const line = `${found.toFixed(2)} ${name}: ${walk.currentNode.data}`;
      if (found < (large ? 3 : 4.5)) bad.push(line);
    }
  }
  return [seen, [...new Set(bad)]];
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_contrast(tab: Tab, tmp_path: Path, dark: bool) -> None:
    """All texts, at an encapsulated hop with a field picked, of a lost packet, of lost frames."""
    for found in (pages.ping(), lost(), several(), in_pieces()):
        opened(tab, tmp_path, found, dark=dark)
        tab.run("document.getElementById('tables').open = true")
        for key in (Keys.HOME, Keys.END):
            tab.press(key)
            tab.find("[data-byte='27']").click()
            seen, bad = tab.run(CONTRAST)
            assert bad == []
            assert seen > 100


def test_poor_contrast_would_be_seen(tab: Tab, tmp_path: Path) -> None:
    """Grey on grey is found, in the page and in the picture."""
    opened(tab, tmp_path, pages.ping())
    tab.run("document.getElementById('described').style.color = '#aaaaaa'")
    tab.run("document.querySelector('#picture .name').style.fill = '#bbbbbb'")
    _, bad = tab.run(CONTRAST)
    assert sorted({line.split(":")[0].split(" ", 1)[1] for line in bad}) == ["described", "name"]


def test_light_and_dark(tab: Tab, tmp_path: Path) -> None:
    """As the system prefers, until the button is pressed; nothing of it is kept."""
    ground = "return getComputedStyle(document.body).backgroundColor"
    opened(tab, tmp_path, pages.ping(), dark=True)
    dark = tab.run(ground)
    tab.find("#theme").click()
    light = tab.run(ground)
    opened(tab, tmp_path, pages.ping(), dark=True)
    assert (tab.run(ground), dark != light) == (dark, True)
    opened(tab, tmp_path, pages.ping())
    assert (tab.run(ground), tab.text("#theme")) == (light, "Dark colours")
    tab.find("#theme").click()
    assert (tab.run(ground), tab.text("#theme")) == (dark, "Light colours")


def test_a_lost_packet_is_marked_and_explained(tab: Tab, tmp_path: Path) -> None:
    """The last hop in red, with the reasons; what it never came to is named."""
    opened(tab, tmp_path, lost())
    assert not tab.find("#lost").is_displayed()
    tab.press(Keys.END)
    assert tab.text("#lost").splitlines() == [
        "Lost: this is the last hop that saw it.",
        "because node01 has no FDB entry for 5a:00:00:00:00:02 on flannel.1: no node to send it to"
        " [state]",
    ]
    assert tab.find(".station.lost").get_attribute("data-hop") == "node01:flannel.1"
    assert tab.texts("#chips .never")[0] == "node01:eth0"
    assert len(tab.all(".station.missed")) == 6
    assert "lost" in tab.text("#legs")


def test_fragments_are_chosen_one_by_one(tab: Tab, tmp_path: Path) -> None:
    """Each has its own bytes."""
    found = in_pieces()
    opened(tab, tmp_path, found)
    stop = found.journeys[0].legs[0].stops[0]
    for number, seen in enumerate(stop.pieces):
        tab.all("#frames button")[number].click()
        assert "".join(tab.texts("#hex .byte")) == seen.frame.data.hex()
    assert len(tab.all("#train .shell")) == 2


def test_journeys_are_chosen(tab: Tab, tmp_path: Path) -> None:
    """A trace of several probes shows one way at a time."""
    opened(tab, tmp_path, several())
    assert tab.texts("#journey option")[1] == "Probe 3: not measured"
    tab.find("#journey").send_keys(Keys.ARROW_DOWN)
    assert tab.text("#place") == "1 / 5"
    opened(tab, tmp_path, pages.ping())
    assert not tab.find("#journeys").is_displayed()


def test_stations_legs_and_chips_lead_to_hops(tab: Tab, tmp_path: Path) -> None:
    """By pointer: in the picture, in the list of hops, and from the request to the answer."""
    opened(tab, tmp_path, pages.ping())
    tab.all("#legs button")[1].click()
    assert tab.text("#place") == "11 / 20"
    tab.all("#chips button")[9].click()
    assert tab.text("#place") == "20 / 20"
    tab.find("[data-hop='node02:cbr0']").click()
    assert tab.text("#place") == "13 / 20"


def test_no_answer_and_a_refusal_are_shown(tab: Tab, tmp_path: Path) -> None:
    """A step without a hop says why there is none."""
    opened(tab, tmp_path, CASES["silence"]())
    tab.press(Keys.END)
    assert (tab.text("#name"), tab.find("#frame").is_displayed()) == ("No answer", False)
    assert "node02/container02 sent no answer" in tab.text("#lost")
    opened(tab, tmp_path, CASES["refused"]())
    assert tab.text("#name") == "No hop saw the packet"
    assert "Message too long, mtu=1450" in tab.text("#lost")


def test_hostile_words_are_words(tab: Tab, tmp_path: Path) -> None:
    """What looks like markup is shown, runs nothing and makes no element."""
    opened(tab, tmp_path, pages.hostile())
    tab.press(Keys.END)
    assert tab.run("return [window.hurt ?? null, document.images.length]") == [None, 0]
    assert pages.HOSTILE in tab.text("#lost")
    assert pages.HOSTILE in tab.text("#why")
    assert tab.complaints == []
    tab.open(tmp_path / "trace.html", size=PHONE)
    assert tab.run("return document.documentElement.scrollWidth") == PHONE[0]


def test_without_scripts(tab: Tab, tmp_path: Path) -> None:
    """The tables and the picture are there, and no control that would do nothing."""
    opened(tab, tmp_path, pages.ping(), scripts=False)
    tab.command("Emulation.setScriptExecutionDisabled", {"value": False})
    words = tab.text("body")
    assert "where JavaScript is allowed" in words
    assert "encapsulated: +50 bytes" in words
    assert len(tab.all("tbody tr")) == 20
    assert tab.find("#picture").is_displayed()
    assert [e for e in tab.all("button, select") if e.is_displayed()] == []


NAMES = """
  const named = (e) => (e.getAttribute("aria-label") || e.textContent
    || [...(e.labels ?? [])].map((l) => l.textContent).join("")).trim();
  return [...document.querySelectorAll("button, select, summary, a")]
    .filter((e) => !named(e)).map((e) => e.outerHTML);
"""


@pytest.mark.parametrize("case", ["ping", "several"])
def test_what_a_screen_reader_needs(tab: Tab, tmp_path: Path, case: str) -> None:
    """A language, landmarks, one main heading, names of all controls, and hops that are spoken."""
    opened(tab, tmp_path, CASES[case]())
    tab.press(Keys.ARROW_RIGHT)
    assert tab.run("return document.documentElement.lang") == "en"
    for landmark in ("header", "main", "footer", "h1", "title"):
        assert len(tab.all(f"body > {landmark}, h1, head > title")) >= 1, landmark
    assert [len(tab.all(tag)) for tag in ("body > header", "main", "body > footer", "h1")] == [
        1
    ] * 4
    assert tab.run(NAMES) == []
    assert tab.texts("#said") == ["Request, node01:vethlocal in. "]
    missing = "return [...document.querySelectorAll('[aria-labelledby], [aria-describedby]')]"
    missing += ".filter((e) => !document.getElementById(e.getAttribute('aria-labelledby')"
    missing += " ?? e.getAttribute('aria-describedby'))).length"
    assert tab.run(missing) == 0


def test_on_paper(tab: Tab, tmp_path: Path) -> None:
    """Printed, the tables are open, the controls gone, and nothing is cut off at the side."""
    opened(tab, tmp_path, pages.ping(), size=(760, 1000))
    tab.command("Emulation.setEmulatedMedia", {"media": "print"})
    tab.run("dispatchEvent(new Event('beforeprint'))")
    assert tab.run("return document.documentElement.scrollWidth") == 760
    assert not tab.find("#player").is_displayed()
    assert len(tab.all("tbody tr")) == 20
    assert tab.find("#tables tbody").is_displayed()
