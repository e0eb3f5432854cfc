"""Asks URLs of the lab, from where the operator is."""

import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass


@dataclass(frozen=True)
class WebAnswer:
    """What a URL answered: a status, or an error where there was no answer."""

    status: int | None
    error: str = ""

    def __str__(self) -> str:
        return f"HTTP {self.status}" if self.status else self.error


def get(url: str, seconds: float = 5) -> WebAnswer:
    """Ask a URL of the lab, never by way of a proxy that the environment names."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=seconds) as response:
            return WebAnswer(response.status)
    except urllib.error.HTTPError as error:
        return WebAnswer(error.code)
    except OSError as error:
        return WebAnswer(None, str(getattr(error, "reason", error)))
    except http.client.HTTPException as error:
        return WebAnswer(None, f"no HTTP: {str(error).strip()}")
