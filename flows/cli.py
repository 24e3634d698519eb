"""The command line: arguments, exit codes, and one line for whatever the user can mend.

    forge run --profile smoke
    forge phase evomerge --input checkpoints/laptop/cognate --out /tmp/merged
    forge evaluate checkpoints/laptop/evomerge --tasks forge_reasoning
    forge generate checkpoints/laptop/quiet_star --prompt "def " --think --show-thoughts
    forge export checkpoints/laptop/bitnet --format gguf --out agent.gguf
    forge chat checkpoints/laptop/baking
    forge serve checkpoints/laptop/adas
    forge memory checkpoints/laptop/baking.memory.sqlite
    forge report checkpoints/laptop --json
    forge phases
    forge promote forge-agent --version 3
    forge distill --set data.run=laptop
    forge projects
    forge recommend --use-case chat --users 500
    forge models show Qwen/Qwen3-8B
    forge deploy plan --dry-run
    forge doctor

Results go to stdout, progress to stderr. Exit codes: 0 done, 1 a gate failed, 2 the user's input, 130 stopped by
Ctrl-C. torch and Prefect are imported by the commands that need them, so that help is quick.
"""

import argparse
import errno
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from flows import (
    agent_arguments,
    deploy_commands,
    distill_commands,
    inbox,
    models_commands,
    outcome_commands,
    recommend_commands,
    triage_commands,
)
from flows.quiet import settle_environment, show_choices
from phases.errors import ForgeError

STOPPED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    parsed = parser().parse_args(arguments)
    settle_environment(parsed.verbose)
    show_choices()
    logging.raiseExceptions = parsed.verbose  # a server that went away takes no logs; that is said once, by us
    try:
        # Imported here: `forge doctor` is for when hardly anything else can be.
        return int(getattr(importlib.import_module(parsed.module), parsed.command)(parsed))
    except ForgeError as error:
        return _fail(" ".join(str(error).split()), error.exit_code)
    except KeyboardInterrupt:
        return _fail("stopped; the same command resumes", STOPPED)
    except BrokenPipeError:  # `forge report … | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror}; free some space or choose another --out, then run the same again", 2)


def _fail(message: str, code: int) -> int:
    print(f"forge: {message}", file=sys.stderr)
    return code


class Parser(argparse.ArgumentParser):
    """Mistakes get one line, like everywhere else."""

    def error(self, message: str) -> NoReturn:
        """Print it and exit with 2."""
        self.exit(2, f"forge: {message}; see `{self.prog} --help`\n")


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = Parser(prog="forge", description="Make a small, measured language-model agent.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = _command(commands, "run", "run the chain, or resume it: the same command skips what is done")
    _add_config(run)
    run.add_argument("--out", type=Path, help="folder of all runs (default: checkpoints)")
    phase = _command(commands, "phase", "run one phase on given checkpoints")
    phase.add_argument("name", help="a phase; `forge phases` lists them")
    phase.add_argument("--input", type=Path, nargs="+", default=[], metavar="CKPT", help="parent checkpoints")
    phase.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the new checkpoint")
    phase.add_argument("--data", type=Path, metavar="DIR", help="prepared data (default: that of the inputs' run)")
    codecs = ("ternary", "vptq", "seedlm", "hyper")
    text = "compression: by this codec alone, at the smallest size that retains enough, else that which keeps most"
    phase.add_argument("--codec", choices=codecs, help=text)
    _add_config(phase)
    evaluate = _command(commands, "evaluate", "measure a checkpoint on held-out data")
    evaluate.add_argument("checkpoint", type=Path, metavar="CKPT")
    evaluate.add_argument("--data", type=Path, metavar="DIR", help="prepared data (default: that of the run)")
    evaluate.add_argument("--tasks", metavar="A,B", help="lm-eval tasks, ours or standard ones, instead")
    text = "let the model think first (quiet_star), or with another position's thoughts (default: off)"
    evaluate.add_argument("--thoughts", choices=("on", "off", "shuffled"), default="off", help=text)
    _add_config(evaluate)
    agent_arguments.add_generate(_command(commands, "generate", "write what follows a prompt", "flows.generate"))
    export = _command(commands, "export", "write a checkpoint for transformers or llama.cpp", "flows.export")
    export.add_argument("checkpoint", type=Path, metavar="CKPT", help="a ternary checkpoint, or a compressed agent")
    form = export.add_mutually_exclusive_group(required=True)
    form.add_argument("--format", choices=("packed", "gguf"), help="for transformers or llama.cpp")
    form.add_argument("--dequantise", action="store_true", help="an agent as plain float32 weights")
    export.add_argument("--out", type=Path, required=True, metavar="PATH", help="folder, or file (gguf)")
    export.add_argument("--layout", choices=("trits", "2bit"), help="of packed codes: 5 (default) or 4 in a byte")
    types, text = (
        ("auto", "tq2_0", "tq1_0", "q4_0", "f16"),
        "of GGUF's ternary tensors (default: the fastest that fits)",
    )
    export.add_argument("--type", choices=types, help=text)
    agent_arguments.add_chat(
        _command(commands, "chat", "talk to an agent; its tools run, its memory lasts", "flows.chat")
    )
    text = "answer at OpenAI's HTTP interface, until Ctrl-C"
    agent_arguments.add_serve(_command(commands, "serve", text, "flows.serve"))
    text = "list what an agent's memory holds, or forget, export, restore, delete it"
    agent_arguments.add_memory(_command(commands, "memory", text, "flows.memory_commands"))
    report = _command(commands, "report", "print the report of a run")
    report.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or its name in checkpoints/")
    _command(commands, "phases", "list the phases of the chain")
    promote = _command(commands, "promote", "make a registered agent the champion", "flows.registry_commands")
    promote.add_argument("--version", type=int, metavar="N", help="which (default: the newest, the challenger)")
    text = "make the champion before this one the champion again"
    rollback = _command(commands, "rollback", text, "flows.registry_commands")
    for command in (promote, rollback):
        command.add_argument("model", nargs="?", default="forge-agent", help="its name (default: forge-agent)")
        command.add_argument("--out", type=Path, default=Path("checkpoints"), help="folder of all runs, with mlflow.db")
    doctor = _command(commands, "doctor", "look for what may be wrong here, and say what mends it", "flows.doctor")
    doctor.add_argument("--out", type=Path, help="folder of all runs (default: checkpoints)")
    doctor.add_argument("--online", action="store_true", help="also ask the hub")
    doctor.add_argument("--deep", action="store_true", help="also hash every checkpoint")
    _add_distillation(commands)
    _add_deployment(commands)
    up = _command(commands, "up", "start Prefect, MLflow and a worker on this machine, until Ctrl-C")
    up.add_argument("--port", type=int, default=4200, help="of Prefect's pages (default: 4200)")
    up.add_argument("--mlflow-port", type=int, default=5000, help="of MLflow's pages (default: 5000)")
    up.add_argument("--notify", metavar="URL", help="webhook for failed runs and gates (default: $FORGE_WEBHOOK_URL)")
    return top


def _add_distillation(commands: "argparse._SubParsersAction[Parser]") -> None:
    """From teachers to a student."""
    text = "one night of a distillation project: teach a smaller student, test it, promote it or not"
    distill_commands.add_arguments(_command(commands, "distill", text, "flows.distill_commands"))
    text = "distillation projects: stages, champions, what they save"
    distill_commands.add_project_arguments(_command(commands, "projects", text, "flows.distill_commands"))
    text = "take records and captured teacher calls over HTTP, for a distillation project"
    inbox.add_arguments(_command(commands, "inbox", text, "flows.inbox"))


def _add_deployment(commands: "argparse._SubParsersAction[Parser]") -> None:
    """From the model to the cluster. What the options are stands beside what they do."""
    text = "what to rent for a model and how to serve on it, why, and why not else"
    recommend_commands.add_arguments(_command(commands, "recommend", text, "flows.recommend_commands"))
    text = "the atlas of open models: list, show, add; validate the physics"
    models_commands.add_arguments(_command(commands, "models", text, "flows.models_commands"))
    text = "bring a plan to a Kubernetes cluster, or put everything back"
    deploy_commands.add_arguments(_command(commands, "deploy", text, "flows.deploy_commands"))
    text = "a stand-in for a planned deployment, without a GPU, for load tests"
    deploy_commands.add_simulate_arguments(_command(commands, "simulate", text, "flows.deploy_commands"))
    text = "correct the predictions by what a load test measured"
    outcome_commands.add_calibrate_arguments(_command(commands, "calibrate", text, "flows.outcome_commands"))
    text = "predicted beside observed, and what has drifted"
    outcome_commands.add_outcome_arguments(_command(commands, "outcomes", text, "flows.outcome_commands"))
    text = "prompt, retrieve, fine-tune, distil, merge or forge: ranked, with reasons and costs"
    triage_commands.add_arguments(_command(commands, "triage", text, "flows.triage_commands"))


def _command(
    commands: "argparse._SubParsersAction[Parser]", name: str, text: str, module: str = "flows.commands"
) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    made.set_defaults(module=module)
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.add_argument("--verbose", action="store_true", help="show the logs of Prefect and transformers")
    return made


def _add_config(command: argparse.ArgumentParser) -> None:
    source = command.add_mutually_exclusive_group()
    source.add_argument("--profile", help="a shipped profile: smoke, laptop (default), full")
    source.add_argument("--config", type=Path, metavar="FILE", help="your own YAML file instead")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, e.g. cognate.trunk.steps=100"
    )


if __name__ == "__main__":
    sys.exit(main())
