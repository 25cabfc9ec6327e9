# SPDX-License-Identifier: Apache-2.0
"""The page at "/" in a browser, against a server of lists (page_server.py). Screenshots: build/page/."""

import base64
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from page_server import PATCH, WORDS, serve

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "build" / "page"
ANSWER = "".join(WORDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if not shutil.which("cmake"):
        pytest.skip("no cmake, which makes the page")
    out = tmp_path_factory.mktemp("page")
    subprocess.run(
        ["cmake", f"-DSOURCE={ROOT / 'src/api/page'}", f"-DOUT={out}", "-P", ROOT / "cmake/page.cmake"], check=True
    )
    return out


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium (PyPI)")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium and chromium-driver (Debian)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900"]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    running.implicitly_wait(0)
    yield running
    running.quit()


class Page:
    def __init__(self, browser, server):
        self.browser, self.server = browser, server
        self.state = server.state

    def open(self, ask="ask", admin="admin"):
        self.browser.get(f"http://127.0.0.1:{self.server.server_port}/")
        self.browser.execute_script(
            "sessionStorage.setItem('memlayers-ask-key', arguments[0]);"
            "sessionStorage.setItem('memlayers-admin-key', arguments[1]);",
            ask,
            admin,
        )
        self.browser.refresh()
        if ask or admin:
            self.until(lambda: self.text("#model") == "smollm2")

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def text(self, selector):
        return self.find(selector).text

    def until(self, holds, seconds=20):
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, seconds, poll_frequency=0.05).until(lambda _: holds())

    def keys(self, *keys):
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def focused(self):
        return self.browser.switch_to.active_element

    def ask(self, question):
        self.find("#question").send_keys(question, "\n")

    def answered(self):
        self.until(lambda: self.find("#send").is_enabled())

    def shoot(self, name):
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.browser.save_screenshot(str(SHOTS / f"{name}.png"))


@pytest.fixture
def page(browser, folder):
    server = serve(folder)
    opened = Page(browser, server)
    opened.open()
    browser.get_log("browser")
    yield opened
    complaints = [line["message"] for line in browser.get_log("browser")]
    complaints = [line for line in complaints if "status of 4" not in line]  # refusals that a test asked for
    server.shutdown()
    server.server_close()
    assert complaints == []


def test_the_policy_names_the_page_s_own_script_and_style(folder):
    html, policy = (folder / "page.html").read_text(), (folder / "page.policy").read_text()
    for tag in ["script", "style"]:
        [text] = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert text
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not re.search(r"https?://", html)  # nothing but this server
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", html)


def test_an_answer_comes_token_by_token_and_each_can_be_opened(page):
    from selenium.webdriver.common.keys import Keys

    page.ask("What is the capital of Freedonia?")
    page.answered()
    answer = page.find("#messages .message:last-child .answer")
    assert answer.get_property("textContent") == ANSWER  # <b> is text
    assert "tokens/s" in page.text("#speed")
    assert "pool version 7" in page.text("#speed")
    asked = page.state.requests[-1]
    assert asked["messages"] == [{"role": "user", "content": "What is the capital of Freedonia?"}]
    assert (asked["top_logprobs"], asked["explain"], asked["temperature"]) == (5, True, 0)

    tokens = page.all("#messages .t")
    assert tokens[5].text == " Fred"
    assert "written" in tokens[5].get_attribute("class")
    # By keys alone: Tab goes to the first token, arrows to the others, Enter opens.
    page.browser.execute_script("arguments[0].focus()", tokens[0])
    page.keys(*[Keys.ARROW_RIGHT] * 5, Keys.ENTER)
    assert page.focused() == tokens[5]
    details = page.text("#token-details")
    for part in ['" Fred"', '" Marx"', "90.5", "5.0", "4711", "0.250", "the capital of Freedonia"]:
        assert part in details
    page.shoot("chat")
    page.find("#token-details button").click()
    assert page.find("#memory").is_displayed()
    assert page.focused().get_attribute("data-patch") == PATCH


def test_an_answer_is_stopped_and_made_again(page):
    page.ask("go on")
    page.until(lambda: len(page.all("#messages .t")) > 5)
    page.find("#stop").click()
    page.answered()
    assert page.text("#speed") == "stopped"
    assert page.state.left.wait(10)
    page.state.requests.clear()
    page.find("#again").click()
    page.until(lambda: page.state.requests)
    assert page.state.requests[0]["messages"] == [{"role": "user", "content": "go on"}]
    page.find("#stop").click()
    page.answered()
    assert len(page.all("#messages .message")) == 2


def test_what_is_refused_is_told_and_the_conversation_goes_on(page):
    page.ask("refuse")
    page.answered()
    assert page.text("#trouble") == "messages: this is refused"
    page.ask("Hello")
    page.until(lambda: len(page.all("#messages .message")) == 3)
    page.answered()
    assert page.text("#trouble") == ""


def test_keys_are_asked_for_and_stay_in_the_tab(page):
    page.open(ask="", admin="")
    page.until(lambda: "expected one of this server's keys" in page.text("#trouble"))
    page.find("#ask-key").send_keys("ask\n")
    page.until(lambda: page.text("#model") == "smollm2")
    page.until(lambda: "who has the key to edit" in page.find("#patches").get_property("textContent"))
    page.browser.refresh()
    page.until(lambda: page.text("#model") == "smollm2")
    assert page.browser.execute_script("return [localStorage.length, document.cookie]") == [0, ""]


@pytest.mark.parametrize("admin", ["", "admin"])
def test_a_model_without_memory_answers_all_the_same(page, admin):
    page.state.has_memory = False
    page.open(admin=admin)
    page.ask("Hello")
    page.answered()
    assert page.find("#messages .message:last-child .answer").get_property("textContent") == ANSWER
    assert page.text("#trouble") == ""
    page.all("#messages .t")[0].click()
    assert "No slots were asked for" in page.text("#token-details")


def test_two_states_of_the_memory_answer_side_by_side(page):
    page.find("#tab-compare").click()
    page.find("#compare-question").send_keys("What is the capital of Freedonia?")
    names = [option.text for option in page.all("#left-view option")]
    assert names == [
        "as it is", "without any memory", "without the capital of Freedonia", "version 7", "version 6"
    ]  # fmt: skip
    page.find("#compare-form button").click()
    page.until(lambda: page.text("#difference"))
    assert page.text("#difference") == "They differ from token 6 on."
    assert page.find("#left-answer").get_property("textContent") == ANSWER
    assert page.find("#right-answer").get_property("textContent") == "The capital of Freedonia is Paris."
    assert sorted(str(asked.get("memory")) for asked in page.state.requests) == ["None", "{'off': True}"]
    page.shoot("compare")


def test_patches_are_rolled_back_and_applied(page, tmp_path):
    page.find("#tab-memory").click()
    for part in ["the capital of Freedonia", "ada", "2026-11-30T12:00:00Z", PATCH]:
        assert part in page.text("#patches")
    page.find("button[aria-label='Conflicts of the capital of Freedonia']").click()
    page.until(lambda: "written over by" in page.text("#patches"))
    page.find("button[aria-label='Roll the capital of Freedonia back']").click()
    page.until(lambda: "version 8" in page.text("#edit-result"))
    page.until(lambda: PATCH in page.text("#undone"))
    assert "None: the pool is as it was trained." in page.text("#patches")
    page.find("#undone button").click()
    page.until(lambda: PATCH in page.text("#patches"))

    file = tmp_path / "a.patch"
    file.write_text("another capital")
    page.find("#patch-file").send_keys(str(file))
    page.find("#upload-form button").click()
    page.until(lambda: "version 10, 1 conflicts" in page.text("#edit-result"))
    assert "17" in page.text("#conflicts")
    page.until(lambda: "another capital" in page.text("#patches .patch"))  # it is on top
    page.shoot("memory")


def test_an_edit_that_came_between_is_seen(page):
    page.find("#tab-memory").click()
    page.state.version += 1
    page.find("button[aria-label^='Roll']").click()
    page.until(lambda: "The pool has changed since this page looked" in page.text("#trouble"))
    assert len(page.state.patches) == 1


def test_a_fact_is_taught_and_its_job_followed(page):
    page.find("#tab-teach").click()
    page.find("#fact-prompt").send_keys("The capital of Sylvania is")
    page.find("#fact-answer").send_keys("Sylvan")
    page.find("#fact-unseen").send_keys("Sylvania's capital:")
    page.find("#fact-subject").send_keys("Sylvania")
    page.find("#add-fact").click()
    assert "Sylvania" in page.text("#facts-to-teach")
    page.find("#fact-prompt").send_keys("The capital of Moravia is")
    page.find("#fact-answer").send_keys("Morav")
    page.find("#fact-note").send_keys("ada, from the almanac")
    page.find("#teach-form .row button:last-child").click()
    page.until(lambda: "applied" in page.text("#jobs"))
    assert page.state.requests[-1] == {
        "facts": [
            {
                "prompt": "The capital of Sylvania is",
                "answer": "Sylvan",
                "unseen": ["Sylvania's capital:"],
                "subject": "Sylvania",
            },
            {"prompt": "The capital of Moravia is", "answer": "Morav"},
        ],
        "gate": {"recall": 1},
        "note": "ada, from the almanac",
    }
    assert "recall 100 %, kept 98 %, pool version 8" in page.text("#jobs")
    page.shoot("teach")
    page.find("#tab-memory").click()
    page.until(lambda: "taught" in page.text("#patches"))


def test_tabs_follow_the_arrow_keys(page):
    from selenium.webdriver.common.keys import Keys

    page.browser.execute_script("arguments[0].focus()", page.find("#tab-chat"))
    page.keys(Keys.ARROW_RIGHT)
    assert page.find("#compare").is_displayed()
    assert page.focused().get_attribute("id") == "tab-compare"
    page.keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert page.find("#teach").is_displayed()


CONTRAST = """
const channels = (text) => text.match(/[\\d.]+/g).slice(0, 3).map((one) => {
  const value = one / 255;
  return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
});
const light = ([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b;
const back = (element) => {
  for (; element; element = element.parentElement) {
    const color = getComputedStyle(element).backgroundColor;
    if (!/, 0\\)$/.test(color)) return color;
  }
  return "rgb(255, 255, 255)";
};
const poor = [];
for (const element of document.querySelectorAll("p, h1, h2, label, button, dt, dd, summary, .t")) {
  if (!element.offsetParent || element.disabled) continue;
  const a = light(channels(getComputedStyle(element).color)), b = light(channels(back(element)));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) poor.push(element.outerHTML.slice(0, 80) + " " + ratio.toFixed(2));
}
return poor;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_can_be_read(page, scheme):
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    page.open()
    page.ask("What is the capital of Freedonia?")
    page.answered()
    assert page.browser.execute_script(CONTRAST) == []
    page.shoot(f"chat_{scheme}")
    unnamed = page.browser.execute_script(
        "return [...document.querySelectorAll('input, select, textarea')]"
        ".filter((one) => one.labels.length === 0 && !one.ariaLabel).map((one) => one.id)"
    )
    assert unnamed == []
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
