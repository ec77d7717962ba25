"""The reference pages say what the code says."""

from pathlib import Path

import pytest

from tvops import reference
from tvops.settings import Settings

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("page", reference.PAGES)
def test_page_is_what_the_code_renders(page: str) -> None:
    assert (DOCS / page).read_text() == reference.PAGES[page]()


def test_every_setting_is_documented() -> None:
    page = reference.settings_page()
    assert [name for name in Settings.__struct_fields__ if f"| `{name}` |" not in page] == []


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main([str(tmp_path / "nope")]) == reference.main([]) == 2
    assert "give the folder of the pages" in capsys.readouterr().err
