"""Their image lists: path and label of each line."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tfnas.authors import read_image_list
from tfnas.jobs.errors import UserError

PARTS = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=8)
IMAGES = st.tuples(st.builds("{}/{}.JPEG".format, PARTS, PARTS), st.integers(0, 999))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(images=st.lists(IMAGES, min_size=1, max_size=10), end=st.sampled_from(["", "\n", "\n\n"]))
def test_round_trip(tmp_path, images, end) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\n".join(f"{name} {label}" for name, label in images) + end)
    assert read_image_list(path) == images


def test_spaces_in_paths_windows_line_ends_and_blank_lines(tmp_path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"a dog/one two.JPEG 3\r\n\r\n  b/x.JPEG   0  \r\n")
    assert read_image_list(path) == [("a dog/one two.JPEG", 3), ("b/x.JPEG", 0)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; expected lines like"),
        (b"\n \n", "is empty"),
        (b"a/x.JPEG 0\na/y.JPEG\n", "line 2: 'a/y.JPEG' has no label"),
        (b"a/x.JPEG cat\n", "line 1: label 'cat' is not a whole number from 0"),
        (b"a/x.JPEG -1\n", "line 1: label '-1' is not a whole number"),
        (b"a/x.JPEG 1.0\n", "line 1: label '1.0' is not a whole number"),
        ("a/x.JPEG ²\n".encode(), "line 1: label '²' is not a whole number"),
        (b"/etc/passwd 0\n", "line 1: path '/etc/passwd' leaves the image folder"),
        (b"a/../../x 0\n", "line 1: path 'a/../../x' leaves the image folder"),
        (b"\xff\xfe\x00", "is not a text file"),
    ],
)
def test_a_bad_list_is_one_line(tmp_path, content, words) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_image_list(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_missing_list_is_one_line(tmp_path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_image_list(tmp_path / "missing.txt")
