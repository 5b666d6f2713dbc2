"""One real edge server for the tests of this folder: a model of numbers and a model of images."""

from collections.abc import Iterator

import httpx
import pytest
from edge_bundles import write_images
from services import GOOD, Service, serving


@pytest.fixture(scope="session")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """`headrace serve --edge` with the models `linear` and `colours`; ends cleanly."""
    images = write_images(tmp_path_factory.mktemp("bundles"))
    home = tmp_path_factory.mktemp("home")
    with serving(home, "--edge", str(GOOD), str(images)) as service:
        yield service
        assert service.end() == 0
        assert service.leftovers() == []


@pytest.fixture
def http(edge: Service) -> Iterator[httpx.Client]:
    """A client of the server's HTTP edge."""
    with httpx.Client(base_url=edge.url, timeout=30) as client:
        yield client
