"""`forge inbox`: takes records and captured teacher calls over HTTP, for the nights of a distillation project.

    forge inbox tickets --port 8100
    curl http://127.0.0.1:8100/records -H 'Content-Type: application/json' -d '[{"prompt": "…", "completion": "…"}]'
    curl http://127.0.0.1:8100/captures -H 'Content-Type: application/json' \\
        -d '{"teacher": "gpt-x", "licence": "…", "calls": [{"request": {…}, "response": {…}}]}'

What was answered is on the disk. A push that is repeated adds nothing, so a sender whose answer got lost sends it
again. What is no record is returned with its reason, and kept with it in the project's `quarantine/`.
"""

import argparse
import json
import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phases.errors import InputError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from distillation.records.reading import Rejected

SHOWN = 300
"""Characters of a row in the quarantine."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Options of `forge inbox`."""
    add = command.add_argument
    add("project", help="name of the distillation project")
    add("--out", type=Path, default=Path("checkpoints"), help="folder of all runs (default: checkpoints)")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default: this machine alone)")
    add("--port", type=int, default=8100, metavar="N", help="of the server; 0: any free one (default: 8100)")
    add("--api-key-env", metavar="NAME", help="the environment variable with the key that senders have to send")


def inbox(arguments: argparse.Namespace) -> int:
    """Listen until Ctrl-C or SIGTERM."""
    import uvicorn

    from flows.console import say
    from flows.serve import bound, key_of
    from flows.serving.door import Door
    from flows.up import Stopped, stop_signals

    if not 0 <= arguments.port < 2**16:
        raise InputError(f"--port {arguments.port}: give a number from 0 (any free port) to 65535")
    key = key_of(arguments.api_key_env)
    with closing(bound(arguments.host, arguments.port)) as listening:
        app = make_app(arguments.out / arguments.project)
        listening.listen(128)
        host, port = listening.getsockname()[:2]
        if key is None and not host.startswith("127.") and host != "::1":
            say(f"inbox: whoever reaches {host} can push records; --api-key-env asks them for a key")
        told = {"url": f"http://{host}:{port}", "project": arguments.project}
        print(json.dumps(told) if arguments.json else f"{told['project']} takes records at {told['url']}", flush=True)
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
        config = uvicorn.Config(Door(app, key), lifespan="off", ws="none", log_config=None, access_log=False)
        try:
            with stop_signals():
                uvicorn.Server(config).run(sockets=[listening])
        except Stopped:
            pass
    return 0


def make_app(project: Path) -> "FastAPI":
    """The application that writes into a project's folder."""
    from fastapi import Body, FastAPI

    from distillation.night.workshop import ARRIVED, CAPTURES, INBOX
    from distillation.records.folder import append_records
    from distillation.records.reading import Rejected, records_of
    from distillation.teachers.store import CaptureStore
    from flows.serving.problems import Problem, install
    from phases.errors import DataError

    app = FastAPI(title="agent-forge inbox", docs_url=None, redoc_url=None, openapi_url=None)
    install(app)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "project": project.name}

    @app.post("/records")
    def records(rows: list[dict[str, Any]] = Body()) -> dict[str, Any]:  # noqa: B008
        try:
            read = records_of(rows, "push")
        except DataError as error:
            _set_aside(project, [Rejected("push", i, str(error), _shown(row)) for i, row in enumerate(rows, start=1)])
            raise Problem(400, str(error)) from None
        _set_aside(project, read.rejected)
        rejected = [{"row": one.line, "reason": one.reason} for one in read.rejected]
        now = {ARRIVED: datetime.now(UTC).isoformat(timespec="seconds")}
        added = append_records(project / INBOX, [replace(one, more={**one.more, **now}) for one in read.records])
        return {"added": added, "known": len(read.records) - added, "rejected": rejected}

    @app.post("/captures")
    def captures(
        calls: list[dict[str, Any]] = Body(),  # noqa: B008
        teacher: str = Body(min_length=1),
        licence: str = Body(min_length=1),
    ) -> dict[str, Any]:
        project.mkdir(parents=True, exist_ok=True)
        with CaptureStore(project / CAPTURES) as store:
            pushed = store.push(calls, teacher, licence)
        refused = pushed.refused.items()
        _set_aside(project, [Rejected("captures", i + 1, reason, _shown(calls[i])) for i, reason in refused])
        told = [f"call {i}: {reason}" for i, reason in refused]
        return {"added": pushed.added, "known": pushed.known, "rejected": told}

    return app


def _set_aside(project: Path, rejected: Sequence["Rejected"]) -> None:
    """Add what is not there yet to the quarantine: a file a day, since retention goes by the age of files."""
    from distillation.night.workshop import QUARANTINE
    from phases.json_lines import append_lines
    from phases.storage import flocked

    if not rejected:
        return
    folder = project / QUARANTINE
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"pushed-{datetime.now(UTC):%Y-%m-%d}.jsonl"
    with flocked(folder / ".lock"):
        known = set(path.read_text(encoding="utf-8").splitlines()) if path.exists() else set()
        lines = dict.fromkeys(json.dumps(asdict(one)) for one in rejected)
        append_lines(path, [line for line in lines if line not in known])


def _shown(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False)[:SHOWN]
