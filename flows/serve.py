"""`forge serve`: an agent behind OpenAI's HTTP interface, for every client that speaks it.

    forge serve checkpoints/laptop/adas
    curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
        -d '{"model": "adas", "messages": [{"role": "user", "content": "compute 37*28"}]}'

One request is answered at a time; `--queue` says how many may wait. Ctrl-C and SIGTERM end it with 0: what is being
answered has seconds to end. It begins to listen when the model has answered once.
"""

import argparse
import json
import logging
import os
import socket
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from flows.console import say
from flows.up import Stopped, stop_signals
from phases.errors import InputError

if TYPE_CHECKING:
    import uvicorn

    from flows.serving.agent import ServedAgent
    from flows.serving.engine import Engine

STOP_SECONDS = 5
"""What is being answered may take so long when the server is to stop."""
BACKLOG = 128


def serve(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    _check(arguments)
    key = key_of(arguments.api_key_env)
    with closing(bound(arguments.host, arguments.port)) as listening:  # before the model takes seconds to open
        try:
            with stop_signals():
                _serve(arguments, key, listening)
        except Stopped:
            pass
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise `InputError` for the first option that makes no sense."""
    if not 0 <= arguments.port < 2**16:
        raise InputError(f"--port {arguments.port}: give a number from 0 (any free port) to 65535")
    if arguments.queue < 0:
        raise InputError(f"--queue {arguments.queue}: give 0 (nobody waits) or more")
    if arguments.no_memory and arguments.memory is not None:
        raise InputError("--no-memory and --memory do not go together; leave one out")


def key_of(variable: str | None) -> str | None:
    """The API key in an environment variable."""
    if variable is None:
        return None
    key = os.environ.get(variable, "")
    if not key or not key.isascii() or not key.isprintable():
        raise InputError(
            f"--api-key-env {variable}: no key of printable ASCII in it; export {variable}=… and try again"
        )
    return key


def bound(host: str, port: int) -> socket.socket:
    """A socket that has the address. Raises `InputError` where it cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise InputError(f"--host {host}: {error.strerror}; give an address of this machine") from None
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise InputError(
            f"{host}:{port}: {error.strerror}; stop what listens there, or choose another --port"
        ) from None
    return bound


def _serve(arguments: argparse.Namespace, key: str | None, bound: socket.socket) -> None:
    from flows.serving.engine import Engine

    engine = Engine(arguments.queue)
    try:
        agent = _open(arguments, engine)
        bound.listen(BACKLOG)
        _announce(arguments, agent, key, bound)
        make_server(engine, agent, key).run(sockets=[bound])
    finally:
        engine.close()


def make_server(engine: "Engine", agent: "ServedAgent", key: str | None = None) -> "uvicorn.Server":
    """The server of an agent, for a socket that listens already."""
    import uvicorn

    from flows.serving.app import make_app
    from flows.serving.door import Door

    # The door has a line for every request and every failure; uvicorn's would say who asked for what.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    door = Door(make_app(engine, agent), key)
    config = uvicorn.Config(
        door,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    return uvicorn.Server(config)


def _open(arguments: argparse.Namespace, engine: "Engine") -> "ServedAgent":
    """The agent, when it has answered once."""
    from flows.chat import in_words
    from flows.serving.agent import ServedAgent
    from phases.agent.settings import check_own
    from phases.checkpoint import open_checkpoint

    def opening(held: ExitStack) -> ServedAgent:
        agent = ServedAgent.open(open_checkpoint(arguments.agent), arguments.tool, arguments.memory, held)
        agent.warm()
        return agent

    agent = engine.open(opening)
    for name in check_own(agent.settings, agent.tools):
        say(f"serve: the agent's own tool '{name}' is not here; give its file with --tool")
    if words := in_words(agent.design):
        say(f"serve: the agent works by a design of its own: {words}")
    return agent


def _announce(arguments: argparse.Namespace, agent: "ServedAgent", key: str | None, bound: socket.socket) -> None:
    """Say where it listens."""
    host, port = bound.getsockname()[:2]
    url = f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"
    if key is None and not host.startswith("127.") and host != "::1":
        say(f"serve: whoever reaches {host} can use the agent and its tools; --api-key-env asks them for a key")
    if arguments.json:
        print(json.dumps({"url": url, "model": agent.name, "digest": agent.digest}), flush=True)
    else:
        print(f"{agent.name} answers at {url}; Ctrl-C ends it", flush=True)
