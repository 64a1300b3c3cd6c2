"""Folders of fake distributions, as the tests of the registry have them."""

from __future__ import annotations

from ..registry.conftest import host as host
from ..registry.conftest import make_site as make_site
from ..registry.conftest import package as package
from ..registry.conftest import site as site
from ..registry.conftest import source as source
