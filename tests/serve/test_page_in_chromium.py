"""The page in a real Chromium, in front of a real server."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.played import Played, call, chunk, served

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect
# The machine may be busy with other tests.
expect.set_options(timeout=20_000)

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "prompt_tokens_details": {"cached_tokens": 5}}
PASSED = "Passed: the calls are right and the answer has their results."
NASTY = "<img src=x onerror=\"document.title='run'\"> & <b>bold</b>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tools:
        path = next(filter(None, map(shutil.which, BROWSERS)), tools.chromium.executable_path)
        if not Path(path).exists():
            pytest.skip("there is no Chromium: apt install chromium, or playwright install chromium")
        browser = tools.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the page of a server. It must ask nobody else, and report no failure of its own."""
    contexts, problems = [], []

    def begin(url: str, script: str = "", **options: Any) -> Any:
        context = browser.new_context(**options)
        context.add_init_script(script)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if "Content Security" in said.text else None)
        page.on("request", lambda asked: problems.append(asked.url) if not asked.url.startswith(url) else None)
        page.goto(url)
        expect(page.get_by_role("button", name="Follow a chain")).to_be_visible()
        return page

    yield begin
    for context in contexts:
        context.close()
    assert problems == []


class Gate:
    """A server that says one thing, and more when it is let."""

    def __init__(self) -> None:
        self.played = Played(self.answer)
        self.held = threading.Event()
        self.held.set()
        self.opened = threading.Event()
        self.text = f"First. {NASTY} "

    def answer(self, _: Any) -> tuple[int, Iterator[Any]]:
        def chunks() -> Iterator[Any]:
            yield chunk({"role": "assistant", "content": ""})
            self.held.wait(60)
            yield chunk({"content": self.text})
            self.opened.wait(60)
            yield chunk({"content": "And last."})
            yield chunk({}, "stop")
            yield {"choices": [], "usage": USAGE}
            yield "[DONE]"

        return 200, chunks()


@pytest.fixture
def gate() -> Iterator[tuple[Gate, str]]:
    gate = Gate()
    with served(gate.played) as url:
        yield gate, url
        gate.held.set()
        gate.opened.set()


def fits(page: Any) -> bool:
    """Whether nothing reaches beyond the sides."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@pytest.mark.parametrize("title", ["Pick the right tool", "Follow a chain", "Recover from an error"])
def test_a_task_with_tool_calls(nano_server: Any, visit: Callable[..., Any], title: str) -> None:
    page = visit(nano_server.url)
    page.get_by_role("button", name=title).click()
    expect(page.locator(".verdict")).to_contain_text(PASSED)
    task = next(t for t in nano_server.http.get("/playground").json()["tasks"] if t["title"] == title)
    names = {tool["function"]["name"] for tool in task["tools"]}
    cards = page.locator(".call")
    assert cards.count() == {"Pick the right tool": 1, "Follow a chain": 4, "Recover from an error": 2}[title]
    for card in cards.all():
        assert card.locator(".call-name").inner_text() in names
        assert card.locator("pre").first.inner_text().startswith("{")
        assert card.locator("pre").last.inner_text().startswith("{")
    states = page.locator(".state").all_inner_texts()
    assert states == (["failed", "returned"] if title.startswith("Recover") else ["returned"] * cards.count())
    # What a screen reader was told.
    spoken = page.locator("#spoken").inner_text()
    assert f"Calls {cards.first.locator('.call-name').inner_text()} with" in spoken
    assert "Passed" in spoken


def test_a_model_that_says_anything_does_not_pass(random_server: Any, visit: Callable[..., Any]) -> None:
    page = visit(random_server.url)
    page.get_by_role("button", name="Pick the right tool").click()
    expect(page.locator(".verdict.bad")).to_contain_text("Not passed: ")
    expect(page.locator(".verdict.bad")).to_be_in_viewport()
    page.get_by_role("button", name="Tokens").first.click()
    expect(page.locator(".strip .token").first).to_be_visible()


def test_what_the_server_refuses_is_said(random_server: Any, visit: Callable[..., Any]) -> None:
    page = visit(random_server.url)
    page.get_by_label("Message", exact=True).fill("word " * 100_000)
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#trouble")).to_contain_text("shorten")
    expect(page.locator(".model")).to_be_hidden()
    page.get_by_role("button", name="New chat").click()
    expect(page.locator("#trouble")).to_be_hidden()


def test_the_token_inspector(nano_server: Any, visit: Callable[..., Any]) -> None:
    page = visit(nano_server.url)
    page.get_by_role("button", name="Pick the right tool").click()
    expect(page.locator(".verdict")).to_be_visible()
    button = page.get_by_role("button", name="Tokens").first
    said = int(page.locator(".foot").first.inner_text().split(" tokens")[0])
    button.click()
    tokens = page.locator(".strip .token")
    expect(tokens.first).to_be_visible()
    assert button.get_attribute("aria-expanded") == "true"
    assert tokens.count() == said
    forced = page.locator(".strip .forced").count()
    assert 0 < forced < said
    panel = page.locator(".inspector").first
    expect(panel).to_contain_text(f"{said} tokens: {forced} forced by the grammar, {said - forced} free.")
    page.locator(".strip").get_by_role("option", name="<|tool_call_begin|>").click()
    for words in ("forced, 1 of 1,024 ids allowed", "Log-probability", "Experts, 2 of 8 per layer", "chosen"):
        expect(panel).to_contain_text(words)
    layers = panel.locator(".experts li")
    assert layers.count() == 7
    assert panel.locator(".cell.on").count() == 14
    for layer in layers.all():
        numbers = layer.locator("span").last
        assert re.fullmatch(r"\d, \d", numbers.inner_text())
        assert f": {numbers.inner_text()}" in layer.inner_text()
    # Other options are for what comes, and leave alone what was opened.
    page.get_by_text("Options").click()
    page.get_by_label("System text").fill("Be brief.")
    page.get_by_label("Tools", exact=True).select_option("None")
    expect(page.locator(".declared")).to_have_count(0)
    page.get_by_label("Tools", exact=True).select_option("Those of “Follow a chain”")
    expect(page.locator(".declared")).to_contain_text("Follow a chain")
    expect(panel).to_contain_text("1 of 1,024 ids")
    page.get_by_text("Options").click()
    tokens.last.click()
    page.keyboard.press("Home")
    expect(tokens.first).to_be_focused()
    expect(panel).to_contain_text("free, ")
    # The second turn began with what the first one had computed.
    page.get_by_role("button", name="Tokens").last.click()
    expect(page.locator(".inspector").last).to_contain_text("came from the cache")
    assert "cached 0" not in page.locator(".foot").last.inner_text()


def test_a_reload_keeps_the_conversation(nano_server: Any, visit: Callable[..., Any]) -> None:
    page = visit(nano_server.url)
    page.get_by_role("button", name="Recover from an error").click()
    expect(page.locator(".verdict")).to_contain_text(PASSED)
    before = page.locator("#talk").inner_text()
    page.reload()
    expect(page.locator(".verdict")).to_contain_text(PASSED)
    expect(page.get_by_role("button", name="Tokens").first).to_be_visible()
    assert page.locator("#talk").inner_text() == before
    page.get_by_role("button", name="Tokens").first.click()
    expect(page.locator(".strip .token").first).to_be_visible()
    # And it goes on, with the tools of the task.
    page.get_by_label("Message", exact=True).fill("Go and close lever id 7808.")
    page.keyboard.press("Enter")
    expect(page.locator(".user")).to_have_count(2)
    expect(page.locator(".foot")).to_have_count(4)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.locator(".trouble")).to_have_count(0)
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_role("heading", name="Watch a model use tools")).to_be_focused()
    page.reload()
    expect(page.get_by_role("button", name="Follow a chain")).to_be_visible()


def test_chat_streams_and_stops(start: Callable[..., Any], gate: tuple[Gate, str], visit: Callable[..., Any]) -> None:
    played, url = gate
    page = visit(start("--model", f"openai:m@{url}").url)
    page.get_by_text("Options").click()
    page.get_by_label("System text").fill("Be brief.")
    page.get_by_label("Most tokens per turn").fill("77")
    box = page.get_by_label("Message", exact=True)
    box.click()
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Two")
    page.keyboard.press("Enter")
    answer = page.locator(".model .text")
    # While the rest is not there yet, and as text whatever it looks like.
    expect(answer).to_have_text(f"First. {NASTY}")
    expect(page.locator(".model")).to_have_attribute("aria-busy", "true")
    expect(page.locator("#spoken")).to_contain_text("First.")
    assert played.played.asked[-1]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One\nTwo"},
    ]
    assert played.played.asked[-1]["max_tokens"] == 77
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#trouble")).to_contain_text("Stopped.")
    expect(answer).to_have_text(f"First. {NASTY}")
    page.get_by_role("button", name="Try again").click()
    played.opened.set()
    expect(answer).to_have_text(f"First. {NASTY} And last.")
    expect(page.locator(".foot")).to_contain_text("4 tokens")
    expect(page.locator("#trouble")).to_be_hidden()
    assert page.get_by_role("button", name="Tokens").count() == 0
    assert page.title() == "OpenK2"
    page.get_by_label("Message", exact=True).fill("More")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".model")).to_have_count(2)
    expect(page.locator(".model .text").last).to_contain_text("And last.")
    assert [m["role"] for m in played.played.asked[-1]["messages"]] == ["system", "user", "assistant", "user"]


def test_a_server_that_dies_in_the_middle(
    start: Callable[..., Any], gate: tuple[Gate, str], visit: Callable[..., Any]
) -> None:
    played, url = gate
    server = start("--model", f"openai:m@{url}")
    page = visit(server.url)
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    answer = page.locator(".model .text")
    expect(answer).to_contain_text("First.")
    server.process.kill()
    server.process.wait()
    trouble = page.locator("#trouble")
    expect(trouble).to_contain_text(
        "The server went away in the middle of its answer; what was said stays, and you can try again once it is back."
    )
    expect(answer).to_contain_text("First.")
    page.get_by_role("button", name="Try again").click()
    expect(trouble).to_contain_text("The server does not answer")
    expect(answer).to_contain_text("First.")
    played.opened.set()
    start("--model", f"openai:m@{url}", "--port", server.url.rpartition(":")[2])
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".model .text")).to_contain_text("And last.")
    expect(trouble).to_be_hidden()
    assert page.locator(".user").count() == page.locator(".model").count() == 1


def test_what_was_said_stays_until_there_is_more(
    start: Callable[..., Any], gate: tuple[Gate, str], visit: Callable[..., Any]
) -> None:
    played, url = gate
    page = visit(start("--model", f"openai:m@{url}").url)
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    answer = page.locator(".model .text")
    expect(answer).to_contain_text("First.")
    page.keyboard.press("Escape")
    expect(page.locator("#trouble")).to_contain_text("Stopped.")
    played.text, played.held = "Another ", threading.Event()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(answer).to_contain_text("First.")
    expect(page.locator(".model")).to_have_attribute("aria-busy", "true")
    page.keyboard.press("Escape")
    expect(page.locator(".model")).to_have_attribute("aria-busy", "false")
    expect(answer).to_contain_text("First.")
    page.get_by_role("button", name="Try again").click()
    played.opened.set()
    played.held.set()
    expect(answer).to_have_text("Another And last.")
    assert [m["role"] for m in played.played.asked[-1]["messages"]] == ["user"]


def test_a_double_click_is_one_click(
    start: Callable[..., Any], gate: tuple[Gate, str], nano_server: Any, visit: Callable[..., Any]
) -> None:
    _, url = gate
    page = visit(start("--model", f"openai:m@{url}").url)
    box = page.get_by_label("Message", exact=True)
    box.fill("Hello")
    page.get_by_role("button", name="Send").dblclick()
    expect(page.locator(".model .text")).to_contain_text("First.")
    expect(page.locator(".model")).to_have_attribute("aria-busy", "true")
    box.fill("Not yet")
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Stop").dblclick()
    expect(page.locator("#trouble")).to_contain_text("Stopped.")
    assert box.input_value() == "Not yet"

    page = visit(nano_server.url)
    page.get_by_role("button", name="Pick the right tool").click()
    more = page.get_by_role("button", name="More tasks")
    expect(more).to_be_visible()
    # The second click, whatever the first one put there.
    more.evaluate("e => { e.click(); document.querySelector('.task').click(); }")
    expect(page.get_by_role("heading", name="Watch a model use tools")).to_be_focused()
    expect(page.locator(".user")).to_have_count(0)
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Pick the right tool").click()
    expect(page.locator(".user")).to_have_count(1)


def test_options(gate: tuple[Gate, str], start: Callable[..., Any], visit: Callable[..., Any]) -> None:
    played, url = gate
    played.opened.set()
    page = visit(start("--model", f"openai:m@{url}").url)
    page.get_by_text("Options").click()
    most = page.get_by_label("Most tokens per turn")
    for given, becomes in (("200000", "100000"), ("-5", "1"), ("2.6", "3"), ("", "512"), ("999999", "100000")):
        most.fill(given)
        most.blur()
        assert most.input_value() == becomes
    page.get_by_label("System text").fill("Be brief.")
    # A task brings its tools, and leaves the rest.
    page.get_by_role("button", name="Follow a chain").click()
    expect(page.locator(".verdict")).to_be_visible()
    asked = played.played.asked[-1]
    assert (asked["messages"][0]["content"], asked["max_tokens"]) == ("Be brief.", 100_000)
    assert page.get_by_label("System text").input_value() == "Be brief."
    assert page.get_by_label("Tools", exact=True).locator(":checked").inner_text() == "Those of “Follow a chain”"
    # What the browser finds invalid is no reason for a dead button.
    page.get_by_label("Message", exact=True).fill("Hello")
    most.evaluate("e => { e.value = '200000'; }")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".user")).to_have_count(2)


def test_a_script_has_no_tokens_to_count(start: Callable[..., Any], visit: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "script.jsonl").write_text(json.dumps({"role": "assistant", "content": "It is written."}) + "\n")
    page = visit(start("--model", f"script:{tmp_path / 'script.jsonl'}").url)
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    foot = page.locator(".foot")
    expect(foot).to_be_visible()
    assert re.fullmatch(r"\d+\.\d s", foot.inner_text())


def test_a_reload_in_the_middle(start: Callable[..., Any], gate: tuple[Gate, str], visit: Callable[..., Any]) -> None:
    played, url = gate
    page = visit(start("--model", f"openai:m@{url}").url)
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    expect(page.locator(".model .text")).to_contain_text("First.")
    page.reload()
    expect(page.locator(".model .text")).to_contain_text("First.")
    expect(page.locator("#trouble")).to_contain_text("The page was loaded again before the answer was complete.")
    played.opened.set()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".model .text")).to_contain_text("And last.")


@pytest.mark.parametrize(
    "script",
    [
        "for (const one of ['localStorage', 'sessionStorage'])"
        " Object.defineProperty(window, one, { get() { throw new DOMException('denied', 'SecurityError'); } });",
        "sessionStorage.setItem('openk2.conversation', '{\"messages\": 5}');",
        'sessionStorage.setItem(\'openk2.conversation\', \'{"messages": [{"role": "assistant", "content": "a"}]}\');',
        "sessionStorage.setItem('openk2.conversation', '{');",
    ],
)
def test_without_what_was_kept(
    start: Callable[..., Any], gate: tuple[Gate, str], visit: Callable[..., Any], script: str
) -> None:
    played, url = gate
    played.opened.set()
    page = visit(start("--model", f"openai:m@{url}").url, script=script)
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    expect(page.locator(".foot")).to_contain_text("4 tokens")
    page.get_by_role("button", name="Switch to the dark theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_draft_survives_a_reload(random_server: Any, visit: Callable[..., Any]) -> None:
    page = visit(random_server.url)
    page.get_by_label("Message", exact=True).fill("Not sent yet")
    page.reload()
    expect(page.get_by_label("Message", exact=True)).to_have_value("Not sent yet")
    expect(page.get_by_role("button", name="Follow a chain")).to_be_visible()


def calling(times: int) -> Played:
    """A server that calls the first tool so often, then answers."""

    def answer(body: Any) -> tuple[int, list[Any]]:
        said = sum(message["role"] == "tool" for message in body["messages"])
        function = body["tools"][0]["function"]
        arguments = json.dumps(dict.fromkeys(function["parameters"]["properties"], LONG))
        made = call(0, id=f"c{said}", name=function["name"], arguments=arguments)
        end = [chunk({"content": "Enough."}), chunk({}, "stop")]
        return 200, [*([made, chunk({}, "tool_calls")] if said < times else end), "[DONE]"]

    return Played(answer)


LONG = "many words " * 400


def test_a_task_ends_at_its_limit_of_turns_with_its_verdict(
    start: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    with served(calling(99)) as url:
        page = visit(start("--model", f"openai:m@{url}").url)
        page.get_by_role("button", name="Pick the right tool").click()
        expect(page.locator(".verdict:visible")).to_contain_text("Not passed: not finished after 12 turns.")
        expect(page.get_by_role("button", name="Send")).to_be_visible()
        expect(page.locator(".call")).to_have_count(12)
        expect(page.locator("#trouble")).to_be_hidden()
        page.reload()
        expect(page.locator(".verdict:visible")).to_have_count(1)
        expect(page.locator("#trouble")).to_be_hidden()


def test_a_chat_goes_on_behind_its_limit_of_turns(start: Callable[..., Any], visit: Callable[..., Any]) -> None:
    with served(calling(14)) as url:
        page = visit(start("--model", f"openai:m@{url}").url)
        page.get_by_text("Options").click()
        page.get_by_label("Tools", exact=True).select_option("Those of “Follow a chain”")
        page.get_by_label("Message", exact=True).fill("Hello")
        page.keyboard.press("Enter")
        expect(page.locator("#trouble")).to_contain_text("The model called tools 12 times without an answer.")
        expect(page.locator(".call")).to_have_count(12)
        page.get_by_role("button", name="Go on").click()
        expect(page.locator(".model .text").last).to_have_text("Enough.")
        expect(page.locator(".call")).to_have_count(14)
        expect(page.locator("#trouble")).to_be_hidden()


def test_a_long_reason_scrolls(start: Callable[..., Any], visit: Callable[..., Any]) -> None:
    with served(calling(1)) as url:
        page = visit(start("--model", f"openai:m@{url}").url, viewport={"width": 360, "height": 740})
        page.get_by_role("button", name="Pick the right tool").click()
        verdict = page.locator(".verdict:visible")
        expect(verdict).to_contain_text("many words many words")
        assert verdict.bounding_box()["height"] < 400 and fits(page)


def test_text_from_right_to_left(start: Callable[..., Any], gate: tuple[Gate, str], visit: Callable[..., Any]) -> None:
    played, url = gate
    played.text = "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645.\nAnd English. "
    played.opened.set()
    page = visit(start("--model", f"openai:m@{url}").url)
    box = page.get_by_label("Message", exact=True)
    box.fill("\u05e9\u05dc\u05d5\u05dd OpenK2!")
    assert box.evaluate("e => getComputedStyle(e).direction") == "rtl"
    page.keyboard.press("Enter")
    expect(page.locator(".foot")).to_be_visible()
    assert (
        page.evaluate("[...document.querySelectorAll('.text')].map(e => getComputedStyle(e).direction)") == ["rtl"] * 2
    )


def test_open_options_leave_something_of_the_page_in_landscape(random_server: Any, visit: Callable[..., Any]) -> None:
    page = visit(random_server.url, viewport={"width": 740, "height": 360})
    page.get_by_text("Options").click()
    expect(page.get_by_label("System text")).to_be_visible()
    assert page.locator(".composer").bounding_box()["height"] < 0.6 * 360


@pytest.fixture
def locked(start: Callable[..., Any], browser: Any, tmp_path: Path) -> Iterator[tuple[Any, Any, Any]]:
    """A server that wants the key "right", a page that asks for it, and the field for it."""
    (tmp_path / "keys").write_text("right\n")
    (tmp_path / "keys").chmod(0o600)
    server = start("--model", "random:test", "--api-key-file", str(tmp_path / "keys"))
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.url)
    key = page.get_by_label("API key", exact=True)
    expect(key).to_be_focused()
    yield server, page, key
    context.close()


def test_a_key_is_asked_for(locked: tuple[Any, Any, Any]) -> None:
    _, page, key = locked
    wrong = page.get_by_text("The server does not know this key.")
    # The second one cannot even be sent.
    for one in ("wrong", "ключ"):
        key.fill(one)
        page.keyboard.press("Enter")
        expect(wrong).to_be_visible()
        expect(key).to_have_value("")
    assert page.evaluate("sessionStorage.length") == 1
    page.keyboard.press("Escape")
    expect(page.locator("#tasks")).to_contain_text("This server needs an API key.")
    page.get_by_role("button", name="Try again").click()
    key.fill("right")
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("button", name="Follow a chain")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Follow a chain")).to_be_visible()
    # Two requests at once ask for one key.
    page.get_by_role("button", name="Pick the right tool").click()
    expect(page.locator(".verdict")).to_be_visible()
    page.evaluate("sessionStorage.removeItem('openk2.key')")
    page.evaluate("document.querySelectorAll('.foot button').forEach(e => e.click())")
    key.fill("right")
    page.keyboard.press("Enter")
    expect(page.locator(".strip")).to_have_count(page.locator(".foot").count())


def test_a_key_that_is_given_late(locked: tuple[Any, Any, Any]) -> None:
    server, page, key = locked
    page.keyboard.press("Escape")
    page.get_by_text("Options").click()
    page.get_by_label("Most tokens per turn").fill("5")
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Enter")
    key.fill("right")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Tokens")).to_be_visible()
    expect(page.locator("#model")).to_have_text(server.name)
    expect(page.get_by_label("Tools", exact=True).locator("option")).to_have_count(4)
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_role("button", name="Follow a chain")).to_be_visible()


def test_with_the_keyboard_alone(nano_server: Any, visit: Callable[..., Any]) -> None:
    page = visit(nano_server.url)

    def tab_to(name: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "(e => [e.ariaLabel || e.labels?.[0]?.textContent || e.textContent.trim(),"
                " getComputedStyle(e).outlineStyle])(document.activeElement)"
            )
            if name in focused[0]:
                assert focused[1] != "none", focused
                return
        raise AssertionError(f"Tab does not come to {name}")

    tab_to("Skip to the message")
    tab_to("Switch to")
    tab_to("Pick the right tool")
    page.keyboard.press("Enter")
    expect(page.locator(".verdict")).to_contain_text(PASSED)
    tab_to("tools")
    page.keyboard.press("Enter")
    expect(page.get_by_text("get_humidity(region)")).to_be_visible()
    tab_to("Tokens")
    page.keyboard.press("Space")
    expect(page.locator(".strip .token").first).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    expect(page.locator(".strip .token").last).to_be_focused()
    expect(page.locator(".strip .token").last).to_have_attribute("aria-selected", "true")
    # A chat with tools, which no world judges.
    tab_to("More tasks")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Watch a model use tools")).to_be_focused()
    tab_to("Options")
    page.keyboard.press("Enter")
    tab_to("Tools")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.keyboard.type("Check the humidity (region Hanoi)")
    page.keyboard.press("Enter")
    expect(page.locator(".state")).to_have_text("returned")
    expect(page.locator(".model .text").last).to_contain_text("121")
    expect(page.locator(".verdict")).to_be_hidden()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


def open_all(page: Any, turns: int) -> None:
    """Show the tools that are declared, and the tokens of every turn."""
    page.get_by_text("6 tools").click()
    for button in page.get_by_role("button", name="Tokens").all():
        button.click()
    expect(page.locator(".strip")).to_have_count(turns)


def test_phone_width(nano_server: Any, visit: Callable[..., Any]) -> None:
    page = visit(nano_server.url, viewport={"width": 360, "height": 740})
    assert fits(page)
    page.get_by_text("Options").click()
    assert fits(page)
    page.get_by_text("Options").click()
    page.get_by_role("button", name="Follow a chain").click()
    expect(page.locator(".verdict")).to_be_in_viewport()
    open_all(page, 5)
    assert fits(page)
    small = page.evaluate(
        "[...document.querySelectorAll('button, summary, select, textarea')].map(e => e.getBoundingClientRect())"
        ".filter(r => r.width && Math.min(r.width, r.height) < 24).length"
    )
    assert small == 0


CONTRASTS = """() => {
  const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const over = (colours) => {
    context.clearRect(0, 0, 1, 1);
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const low = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode()); ) {
    const holder = node.parentElement;
    if (!node.data.trim() || !holder.checkVisibility() || holder.closest('.unseen, .skip')) continue;
    const grounds = [];
    for (let e = holder; e; e = e.parentElement) grounds.unshift(getComputedStyle(e).backgroundColor);
    const [a, b] = [light(over(grounds)), light(over([...grounds, getComputedStyle(holder).color]))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) low.push([ratio.toFixed(2), node.data.trim().slice(0, 30), holder.className]);
  }
  return low;
}"""

NAMELESS = """() => [...document.querySelectorAll('button, input, select, textarea, summary, [role]')]
  .filter(e => e.checkVisibility() && !(e.labels?.length || e.ariaLabel || e.textContent.trim()))
  .map(e => e.outerHTML)"""


SHADES = """selector => [...document.querySelectorAll(selector)].map(e => {
  const { backgroundColor, borderTopWidth, borderBottomWidth } = getComputedStyle(e);
  return [backgroundColor, borderTopWidth, borderBottomWidth].join();
})"""


def test_forced_colours_leave_what_is_drawn(nano_server: Any, visit: Callable[..., Any]) -> None:
    page = visit(nano_server.url, forced_colors="active")
    page.get_by_role("button", name="Pick the right tool").click()
    expect(page.locator(".verdict")).to_be_visible()
    page.get_by_role("button", name="Tokens").last.click()
    expect(page.locator(".strip")).to_be_visible()
    off, on, first = (
        set(page.evaluate(SHADES, f".cells {one}")) for one in (".cell:not(.on)", ".on:not(.first)", ".first")
    )
    assert len(off) == len(on) == len(first) == 1
    assert len(off | on | first) == 3
    bars = page.evaluate(SHADES, ".bars .track") + page.evaluate(SHADES, ".bars .own .fill")
    assert len(set(bars)) == 2
    assert len(set(page.evaluate(SHADES, ".legend .token"))) == 3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_can_be_read(nano_server: Any, visit: Callable[..., Any], theme: str) -> None:
    page = visit(nano_server.url, color_scheme=theme)
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.evaluate(CONTRASTS) == []
    page.get_by_text("Options").click()
    page.get_by_role("button", name="Recover from an error").click()
    expect(page.locator(".verdict")).to_be_visible()
    open_all(page, 3)
    assert page.evaluate(CONTRASTS) == []
    assert page.evaluate(NAMELESS) == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    landmarks = page.evaluate("[...document.querySelectorAll('section[aria-label]')].map(e => e.ariaLabel)")
    assert [one.split(":")[0] for one in landmarks] == ["Conversation", "Call 1", "Call 2"]
    other = {"light": "dark", "dark": "light"}[theme]
    page.get_by_role("button", name=f"Switch to the {other} theme").click()
    assert page.evaluate(CONTRASTS) == []
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == other
