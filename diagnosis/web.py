"""HTTP requests to the lab's URLs, from the controller."""

import http.client
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass


@dataclass(frozen=True)
class WebAnswer:
    """The answer of a URL: an HTTP status, or an error if there was no answer."""

    status: int | None
    error: str = ""

    def __str__(self) -> str:
        return f"HTTP {self.status}" if self.status else self.error


def get(url: str, authority: str = "", seconds: float = 5) -> WebAnswer:
    """Send a GET request, without any proxy that the environment names.

    Args:
        url: The URL.
        authority: Certificates, PEM, that are trusted with HTTPS besides the controller's own.
        seconds: Timeout.
    """
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if authority:
        context = ssl.create_default_context()
        context.load_verify_locations(cadata=authority)
        # A certificate that is trusted itself needs no issuer.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        handlers.append(urllib.request.HTTPSHandler(context=context))
    opener = urllib.request.build_opener(*handlers)
    try:
        with opener.open(url, timeout=seconds) as response:
            return WebAnswer(response.status)
    except urllib.error.HTTPError as error:
        return WebAnswer(error.code)
    except OSError as error:
        return WebAnswer(None, str(getattr(error, "reason", error)))
    except http.client.HTTPException as error:
        return WebAnswer(None, f"no HTTP: {str(error).strip()}")
