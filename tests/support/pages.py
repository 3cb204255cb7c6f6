"""The data in a report's page."""

from __future__ import annotations

import json
from typing import Any


def page_data(page: str) -> Any:
    """The JSON that the page's scripts draw."""
    text = page.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    return json.loads(text)
