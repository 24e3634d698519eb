"""The options of the commands that let a checkpoint write: generate, chat, serve, memory."""

import argparse
from pathlib import Path


def add_generate(generate: argparse.ArgumentParser) -> None:
    """Of `forge generate`."""
    add = generate.add_argument
    add("checkpoint", type=Path, metavar="CKPT")
    add("--prompt", metavar="TEXT", help="what to continue (default: standard input)")
    add("--question", action="store_true", help="put the prompt as a question, as the tasks are")
    add("--max-new-tokens", type=int, default=128, metavar="N", help="write at most so many (default: 128)")
    add(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="draw tokens; 0 (default) takes the likeliest",
    )
    add("--seed", type=int, default=0, metavar="N", help="of all that is drawn (default: 0)")
    add("--think", action="store_true", help="think before each token")
    add("--shuffled", action="store_true", help="think, but read another position's thought")
    add("--tokens", type=int, metavar="N", help="length of a thought (default: as in training)")
    add("--show-thoughts", action="store_true", help="print each thought on stderr, with its weight")


def add_chat(chat: argparse.ArgumentParser) -> None:
    """Of `forge chat`."""
    add = chat.add_argument
    add("agent", type=Path, metavar="AGENT", help="what the baking phase wrote")
    add("--memory", type=Path, metavar="FILE", help="where it remembers (default: beside the agent)")
    add("--no-memory", action="store_true", help="forget everything at the end")
    add("--tool", type=Path, action="append", default=[], metavar="FILE", help="a tool of your own; repeat for more")
    add("--system", metavar="TEXT", help="a system prompt (default: none; what it said is baked in)")
    add("--show-tools", action="store_true", help="also put the tools' signatures before the conversation")
    add("--temperature", type=float, default=0.0, metavar="T", help="draw tokens; 0 (default): as the design says")
    add("--seed", type=int, default=0, metavar="N", help="of all that is drawn (default: 0)")


def add_serve(serve: argparse.ArgumentParser) -> None:
    """Of `forge serve`."""
    add = serve.add_argument
    add("agent", type=Path, metavar="AGENT", help="what the baking or the adas phase wrote")
    add(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen (default: 127.0.0.1, this machine alone)",
    )
    add("--port", type=int, default=8000, metavar="N", help="of the server; 0: any free one (default: 8000)")
    add("--tool", type=Path, action="append", default=[], metavar="FILE", help="a tool of your own; repeat for more")
    add("--memory", type=Path, metavar="FILE", help="where it remembers, for all clients together")
    add("--no-memory", action="store_true", help="forget everything after each request (default)")
    add("--api-key-env", metavar="NAME", help="the environment variable with the key that clients have to send")
    add("--queue", type=int, default=8, metavar="N", help="requests that may wait (default: 8); more are refused")


def add_memory(memory: argparse.ArgumentParser) -> None:
    """Of `forge memory`."""
    add = memory.add_argument
    add("file", type=Path, metavar="FILE", help="a memory that `forge chat` wrote")
    add("--search", metavar="WORDS", help="what comes to mind")
    add("--forget", metavar="WORDS", help="forget what matches")
    add("--export", type=Path, metavar="PATH", help="write everything as JSON lines")
    add("--restore", type=Path, metavar="PATH", help="read JSON lines that were exported")
    add("--delete", action="store_true", help="delete everything, from the disk too")
