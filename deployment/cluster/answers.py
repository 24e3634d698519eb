"""What a cluster answers, as a result or as one line: the client's and the network's errors in words.

    found = said("read Deployment/qwen", lambda: resource.get(name="qwen", namespace="models"))

A line has what the server said and nothing of the request: headers hold the token, and a request's body may hold what
is nobody's business.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from phases.errors import InputError

_ADVICE = {
    401: "log in again, or choose another --context",
    403: "ask for that right, or choose another --namespace",
    404: "it does not exist there; create the namespace first",
    409: "another tool owns these fields; --force takes them over",
    422: "the server refuses the manifest; mend the field that it names",
}
_TOO_MANY = 429
_Result = TypeVar("_Result")


class Unanswered(InputError):
    """Nobody answered, or the server could not just then: the same question may be answered later."""


def said(what: str, act: Callable[[], _Result]) -> _Result:
    """The result of `act`. Raises `InputError`, and `Unanswered` of it, where there is none."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return act()
    except InputError:
        raise
    except ApiException as error:
        raise _refused(what, error) from None
    except HTTPError as error:
        raise _silent(what, type(getattr(error, "reason", None) or error).__name__) from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # The client trips over answers that are no API server's, and over its own error of a broken TLS handshake.
        if isinstance(error.__context__, ApiException):
            raise _silent(what, one_line(str(error.__context__.reason))[:120]) from None
        raise InputError(f"cannot {what}: what answers is no Kubernetes API server; check its address") from None


def _refused(what: str, error: Any) -> InputError:
    status = error.status or 0
    if status == 0:  # the client's own number for a broken connection
        return _silent(what, one_line(str(error.reason))[:120])
    advice = _ADVICE.get(status, "try again, or ask who runs the cluster")
    kind = Unanswered if status == _TOO_MANY or status >= 500 else InputError
    return kind(f"cannot {what}: {_answer(error)}; {advice}")


def _silent(what: str, reason: str) -> Unanswered:
    return Unanswered(f"cannot {what}: no answer from the cluster ({reason}); check its address")


def _answer(error: Any) -> str:
    """The server's own words: the message of its Status, and nothing of the request."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or ""
    with suppress(ValueError, KeyError, TypeError):
        return f"{error.status} {one_line(str(json.loads(body)['message']))}"
    return f"{error.status} {error.reason}"


def one_line(text: str) -> str:
    """`text` without line breaks, and not too long for one."""
    return " ".join(text.split())[:400]
