"""What tests read off the console's page, and do there as people do: by keyboard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.chromium import Page

_SCRIPTS = Path(__file__).parent
_CONTRAST = (_SCRIPTS / "contrast.js").read_text()
H1 = "document.querySelector('h1')?.textContent"
STATE = "document.getElementById('state')?.textContent"
SAID = "document.querySelector('[role=status]').textContent"
LEDGER = """Object.fromEntries(
  [...document.querySelectorAll('.ledger div')].map((one) => [...one.children].map((cell) => cell.textContent)))"""
FLOW = """[...document.querySelectorAll('.flow > li')].map((stage) =>
  [stage.querySelector('h3').innerText, stage.querySelector('.what').innerText,
    ...[...stage.querySelectorAll('p')].map((line) => line.innerText)])"""
_NAMED = {"button", "link", "textbox", "searchbox", "combobox", "listbox", "option", "image", "img", "region", "dialog"}
_LANDMARKS = {"banner", "main", "contentinfo", "status", "heading"}


async def sign_in(page: Page, token: str) -> None:
    """Type a token where the page asks for one."""
    await page.until("document.activeElement?.id === 'token'")
    await page.type(token)
    await page.press("Enter")


async def confirm(page: Page, button: str, answer: str) -> None:
    """Go to one of a mapping's buttons by Tab, press it, and confirm what it asks."""
    await page.evaluate("document.getElementById('main').focus()")
    await page.tab_to(f"at.textContent === '{button}'")
    await page.press("Enter")
    await page.until("document.querySelector('dialog[open]') && document.activeElement?.textContent === 'Cancel'")
    await page.press("Tab")
    assert await page.evaluate("document.activeElement?.textContent") == answer
    await page.press("Enter")


async def legible(page: Page, *, width: int = 1280) -> None:
    """Check contrasts in light and dark, and that nothing is wider than the window."""
    for scheme in ("light", "dark"):
        await page.show(width=width, scheme=scheme)
        assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        found = await page.evaluate(_CONTRAST)
        assert found["poor"] == []
        assert found["seen"] > 30
    await page.show()


async def tree(page: Page) -> list[tuple[str, str]]:
    """Return the accessibility tree: role and name of all that is not left out of it."""
    nodes: list[dict[str, Any]] = (await page.command("Accessibility.getFullAXTree"))["nodes"]
    return [
        (node["role"]["value"], str(node.get("name", {}).get("value", "")).strip())
        for node in nodes
        if not node["ignored"]
    ]


async def everything_has_a_name(page: Page) -> list[tuple[str, str]]:
    """Check names, landmarks and headings; return the accessibility tree."""
    found = await tree(page)
    assert [role for role, name in found if role in _NAMED and not name] == []
    assert {role for role, _ in found} >= _LANDMARKS
    levels = await page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((one) => Number(one.tagName[1]))")
    assert levels.count(1) == 1
    return found


async def stops(page: Page, *, at_most: int = 40) -> list[str]:
    """Press Tab from the top of the page until it begins anew; return what had the focus, by name."""
    await page.evaluate("document.activeElement?.blur(); getSelection().removeAllRanges(); scrollTo(0, 0)")
    await page.evaluate("document.querySelector('.skip').focus()")
    passed: list[str] = []
    for _ in range(at_most):
        name = await page.evaluate("""((at) => at === document.body ? '' :
          at.ariaLabel ?? document.getElementById(at.getAttribute('aria-labelledby'))?.textContent
          ?? at.textContent)(document.activeElement)""")
        if not name or (passed and name == passed[0]):
            break
        passed.append(re.sub(r"\s+", " ", name))
        await page.press("Tab")
    return passed
