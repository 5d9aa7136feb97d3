"""What can go wrong, as exceptions that say it in the server's own sentence.

``LogitdError`` is the base of all. ``ApiError`` and its children are answers of a server and carry what it said:
``status``, ``code``, ``param`` (the path of the field that was wrong, as ``prompt[3]``) and ``request_id``, under
which the server's log has the request.
"""

from __future__ import annotations

import json


class LogitdError(Exception):
    """Anything that this package raises; ``str()`` is a sentence for a person."""


class ConnectionFailed(LogitdError):
    """No server answered, or it stopped answering."""


class ServerStartFailed(LogitdError):
    """A private server did not come up; the sentence ends with what it wrote."""


class ApiError(LogitdError):
    """An answer that is no success."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        param: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class BadRequest(ApiError):
    """A field is wrong; ``param`` names it (400, and other 4xx)."""


class Unauthorized(ApiError):
    """The server wants a key, or another name of itself (401, 403)."""


class TooLarge(ApiError):
    """The request or its reply is over a limit of the server; the sentence says both sizes (413)."""


class Busy(ApiError):
    """The server had no room, also after all retries; ``retry_after_s`` is its advice (429, 503)."""


class ServerFailed(ApiError):
    """The server failed, or could not complete a reply (other 5xx, or an error midway)."""


_KINDS: dict[int, type[ApiError]] = {401: Unauthorized, 403: Unauthorized, 413: TooLarge, 429: Busy, 503: Busy}


def api_error(
    status: int, body: bytes, *, request_id: str | None = None, retry_after_s: float | None = None
) -> ApiError:
    """The exception for a reply that is no success; ``body`` is best the API's error object, but may be anything."""
    try:
        error = json.loads(body)["error"]
        message, code, param = str(error["message"]), str(error["code"]), error["param"]
    except (ValueError, TypeError, KeyError):
        text = body[:200].decode(errors="replace").strip()
        message, code, param = f"HTTP status {status}, not from logitd itself: {text or 'no text'}", "", None
    kind = _KINDS.get(status, BadRequest if status < 500 else ServerFailed)
    return kind(message, status=status, code=code, param=param, request_id=request_id, retry_after_s=retry_after_s)
