"""The pages: every relative link leads somewhere, and the first page is short enough to be read."""

import re

import pytest
import tiny

PAGES = sorted(
    path.relative_to(tiny.ROOT)
    for folder in (".", "configs", "examples", "scripts", "tests")
    for path in (tiny.ROOT.glob("*.md") if folder == "." else (tiny.ROOT / folder).rglob("*.md"))
)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_relative_link_leads_somewhere(page):
    text = (tiny.ROOT / page).read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not ((tiny.ROOT / page).parent / link).exists()] == []


def test_the_first_page_is_read_in_three_minutes():
    assert len((tiny.ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
