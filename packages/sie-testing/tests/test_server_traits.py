"""Each server answers as the table says, and the table stands in the docs."""

from pathlib import Path

import pytest

from sie_testing import places, server_traits

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", places.S3_PLACES)
def test_a_server_answers_as_the_table_says(name: str, tmp_path: Path) -> None:
    with places.running(name, tmp_path) as place:
        assert place.endpoint is not None
        s3 = server_traits.client(place.endpoint, access_key=places.ACCESS_KEY, secret_key=places.SECRET_KEY)
        answers = server_traits.probe(s3, places.BUCKET)

    names = list(server_traits.TRAITS)
    assert dict(zip(names, answers, strict=True)) == dict(zip(names, server_traits.MEASURED[name], strict=True))


def test_the_docs_have_the_table() -> None:
    page = (ROOT / "docs" / "formats" / "bucket-layout.md").read_text("utf-8")

    assert server_traits.markdown() in page
