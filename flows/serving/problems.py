"""What a client gets instead of an answer, in OpenAI's form.

raise Problem(404, "the model 'x' does not exist; there is: adas", "model", "model_not_found")
{"error": {"message": "…", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}}
"""

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from flows.console import say
from phases.errors import ForgeError

RETRY_SECONDS = 1
"""What a client that is not answered is told to wait."""


class Problem(HTTPException):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`param`: the field that is wrong; `code`: what programs tell errors apart by."""
        super().__init__(status, message, dict(headers or {}))
        self.param, self.code = param, code

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        kind = "invalid_request_error" if self.status_code < 500 else "server_error"
        return {"error": {"message": str(self.detail), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The error as an answer."""
        return JSONResponse(self.body, self.status_code, headers=self.headers)


def busy(waiting: int) -> Problem:
    """So many requests wait that no more may."""
    message = f"one request is answered and {waiting} wait; try again later"
    return Problem(503, message, code="busy", headers={"Retry-After": str(RETRY_SECONDS)})


def stopping() -> Problem:
    """The server ends before it has answered."""
    message = "the server is stopping; try again later"
    return Problem(503, message, code="stopping", headers={"Retry-After": str(RETRY_SECONDS)})


def too_long(tokens: int, context: int, param: str) -> Problem:
    """A prompt that leaves no room in the model's context."""
    message = f"{param}: {tokens:,} tokens, but the model's context holds {context:,}; give at most {context - 1:,}"
    return Problem(400, message, param, "context_length_exceeded")


def problem_of(error: BaseException) -> Problem:
    """An exception as the client sees it. What was not foreseen says nothing of itself: it may hold what was said."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail), headers=error.headers)
    if isinstance(error, ForgeError):
        return Problem(500, " ".join(str(error).split()))
    return Problem(500, f"the server failed ({type(error).__name__}); its log has the place")


def tell(error: Exception) -> None:
    """Log where something went wrong. What the error says is left out: it may be what somebody said."""
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    say(f"serve: {type(error).__name__} at {' < '.join(places[:-4:-1])}")


def install(app: FastAPI) -> None:
    """Let every error of an application be answered in this form."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return problem_of(error).response()

    for kind in (HTTPException, RequestValidationError, ForgeError, Exception):
        app.add_exception_handler(kind, answer)


def _invalid(error: RequestValidationError) -> Problem:
    """The first field that is wrong. What was given is not repeated."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return Problem(400, "the body is not JSON; send a JSON object", code="invalid_json")
    # Where a field may be of several types, the type that was tried is a part of the place too.
    parts = [part for part in first["loc"][1:] if isinstance(part, int) or ("[" not in part and part not in _TYPES)]
    if not parts:
        wanted = "list" if first["type"] == "list_type" else "object"
        return Problem(400, f"the body is no JSON {wanted}; send one, with content-type: application/json")
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
    return Problem(400, f"{field}: {first['msg']}", field, "invalid_value")


_TYPES = ("str", "Text")
