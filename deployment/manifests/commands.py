"""Command lines: the engine's own arguments, as a list; shell lines of them; and the load test that goes with a plan.

    from deployment.manifests.commands import arguments, shell
    print(shell(arguments(plan)))

Flags are those of vLLM's `serve` reference (docs.vllm.ai, engine arguments; online quantisation; parallelism and
scaling), of TGI's launcher reference, and of GuideLLM 0.7 and later (`guidellm run`; its `benchmark` command is older).
Whatever the plan says about weights, keys and values, parallelism and context is in the arguments: a plan for eight
accelerators that runs on one is the complaint that users of such tools have most.
"""

import json
import shlex
from collections.abc import Sequence

from deployment.manifests.plan import PORT, Plan
from deployment.physics.queueing import VARIATION
from phases.errors import InputError

MASTER_PORT = 29500
DATA_PARALLEL_PORT = 13345
LOAD_TEST_SECONDS = 300
URL = f"http://localhost:{PORT}"
TOKENIZER = "$TOKENIZER"
TOKENIZER_WORDS = "the folder of the checkpoint, for its tokenizer"
_WIDTH = 100
# An instance's number is its rank; every other than the first computes and answers nothing.
_RANKED = 'if [ "$NODE_RANK" = 0 ]; then exec "$@" --node-rank 0; fi; exec "$@" --node-rank "$NODE_RANK" --headless'
_RANKED_DATA = (
    'if [ "$NODE_RANK" = 0 ]; then exec "$@"; fi; '
    'exec "$@" --headless --data-parallel-start-rank "$((NODE_RANK * {local}))"'
)


def arguments(plan: Plan) -> list[str]:
    """The engine and its arguments, of the first (or only) pod of a replica, without the shell's quotes."""
    if plan.runtime == "vllm":
        return ["vllm", "serve", plan.checkpoint, *vllm_flags(plan)]
    if plan.runtime == "tgi":
        return ["text-generation-launcher", *tgi_flags(plan)]
    return ["forge", "serve", plan.checkpoint, "--host", "0.0.0.0", "--port", str(PORT)]


def vllm_flags(plan: Plan) -> list[str]:
    """Of `vllm serve`, after the model."""
    flags = ["--host", "0.0.0.0", "--port", str(PORT)]
    if plan.mounted:
        flags += ["--served-model-name", plan.served_name]
    return flags + parallel_flags(plan) + numeric_flags(plan)


def parallel_flags(plan: Plan) -> list[str]:
    """How one replica is split over its accelerators; on one instance."""
    serving = plan.candidate.serving
    sizes = (("tensor", serving.tp), ("pipeline", serving.pp), ("data", serving.dp))
    flags = [part for name, size in sizes if size > 1 for part in (f"--{name}-parallel-size", str(size))]
    return [*flags, "--enable-expert-parallel"] if serving.ep > 1 else flags


def numeric_flags(plan: Plan) -> list[str]:
    """What decides memory and arithmetic: precision of weights and of keys and values, context, share of the memory."""
    serving = plan.candidate.serving
    flags: list[str] = []
    if plan.quantise:
        flags += ["--quantization", "fp8"]
    elif serving.precision == "bf16":
        flags += ["--dtype", "bfloat16"]
    if serving.kv_bits == 8:
        flags += ["--kv-cache-dtype", "fp8"]
    elif serving.kv_bits != 16:
        raise InputError(f"keys and values of {serving.kv_bits} bits: vLLM and TGI keep 16 or 8")
    if serving.max_context is not None:
        flags += ["--max-model-len", str(serving.max_context)]
    if serving.utilisation is not None:
        flags += ["--gpu-memory-utilization", f"{serving.utilisation:g}"]
    if serving.prefix_cached > 0:
        flags += ["--enable-prefix-caching"]
    return flags + _speculation(plan)


def _speculation(plan: Plan) -> list[str]:
    """Drafts looked up in the prompt: what needs no second model, as a plan names none."""
    tokens = plan.candidate.serving.draft_tokens
    if not tokens:
        return []
    settings = {"method": "ngram", "num_speculative_tokens": tokens, "prompt_lookup_max": tokens}
    return ["--speculative-config", json.dumps(settings)]


def multi_node_flags(plan: Plan, head: str) -> list[str]:
    """Of every pod of a replica that spans instances; `head` is the host name of its first pod.

    The pod's own rank is added where it is known (`ranked`). With data parallelism each pod runs whole copies of
    attention; otherwise the ranks of TP × PP are dealt out over the pods.
    """
    serving = plan.candidate.serving
    if serving.dp == 1:
        flags = ["--nnodes", str(plan.nodes), "--master-addr", head, "--master-port", str(MASTER_PORT)]
        return ["--distributed-executor-backend", "mp", *flags]
    local, rest = divmod(serving.dp, plan.nodes)
    if rest or local * serving.tp * serving.pp != plan.accelerators_per_node:
        raise InputError(f"DP {serving.dp} does not divide over {plan.nodes} instances; choose a multiple of them")
    flags = ["--data-parallel-address", head, "--data-parallel-rpc-port", str(DATA_PARALLEL_PORT)]
    return ["--data-parallel-size-local", str(local), *flags]


def ranked(plan: Plan) -> str:
    """What a shell does with the engine's line, as `"$@"`, on the instance number `$NODE_RANK` of a replica."""
    serving = plan.candidate.serving
    return _RANKED_DATA.format(local=serving.dp // plan.nodes) if serving.dp > 1 else _RANKED


def start_script(plan: Plan) -> str:
    """The engine as a shell starts it; of a replica over several instances on each of them, with its own number."""
    if plan.nodes == 1:
        return f"exec {shell(arguments(plan))}\n"
    line = shell([*arguments(plan), *multi_node_flags(plan, "$HEAD")]).replace("'$HEAD'", '"$HEAD"')
    return (
        f"# On each of the {plan.nodes} instances of a replica; the first one's number is 0, and it answers requests.\n"
        ': "${HEAD:?the address of the first instance}" "${NODE_RANK:?the number of this instance, from 0}"\n'
        f"set -- {line}\n{ranked(plan)}\n"
    )


def load_script(plan: Plan) -> str:
    """The load test as a shell starts it, against `$URL`."""
    replicas = plan.candidate.replicas
    which = "where the engine answers"
    if replicas > 1:
        which = (
            f"the address behind which all {replicas} replicas stand, a load balancer's or in the cluster the\n"
            f"# Service's, http://{plan.name}:{PORT}; kubectl port-forward puts the load of all on one"
        )
    needed = f': "${{TOKENIZER:?{TOKENIZER_WORDS}}}"\n' if plan.tokenizer_unknown else ""
    return f"# URL: {which}.\nURL=${{URL:-{URL}}}\n{needed}exec {load_line(plan, '$URL')}\n"


def load_line(plan: Plan, url: str = URL) -> str:
    """`load_test` for a POSIX shell, which fills in `$URL` and `$TOKENIZER` where they stand."""
    line = shell(load_test(plan, url))
    for variable in [*(["$URL"] if url == "$URL" else []), *([TOKENIZER] if plan.tokenizer_unknown else [])]:
        line = line.replace(variable, f"'\"{variable}\"'", 1)  # out of the single quotes that it stands in
    return line


def tgi_flags(plan: Plan) -> list[str]:
    """Of `text-generation-launcher`."""
    serving = plan.candidate.serving
    flags = ["--model-id", plan.checkpoint, "--hostname", "0.0.0.0", "--port", str(PORT)]
    flags += ["--num-shard", str(serving.tp)]
    if plan.quantise:
        flags += ["--quantize", "fp8"]
    elif serving.precision == "bf16":
        flags += ["--dtype", "bfloat16"]
    if serving.kv_bits == 8:
        flags += ["--kv-cache-dtype", "fp8_e4m3fn"]
    elif serving.kv_bits != 16:
        raise InputError(f"keys and values of {serving.kv_bits} bits: vLLM and TGI keep 16 or 8")
    if serving.max_context is not None:
        # At least one token is left for the answer: TGI refuses prompts as long as the whole.
        limits = (str(serving.max_context - 1), str(serving.max_context))
        flags += ["--max-input-tokens", limits[0], "--max-total-tokens", limits[1]]
        if plan.resource == "amd.com/gpu" or serving.draft_tokens:
            # Prompts are not read in pieces there, and the launcher's own choice (4096 on AMD) refuses to start.
            flags += ["--max-batch-prefill-tokens", limits[1]]
    if serving.utilisation is not None:
        flags += ["--cuda-memory-fraction", f"{serving.utilisation:g}"]
    return [*flags, "--speculate", str(serving.draft_tokens)] if serving.draft_tokens else flags


def load_test(plan: Plan, url: str = URL, output: str = "measured.json") -> list[str]:
    """GuideLLM with the prompts, answers and arrivals that the plan was made for, over all replicas.

    Answers vary in length as the queue's model has them, and are never cut off at the mean. The output is what
    `forge calibrate` reads. GuideLLM makes prompts of so many tokens with the model's own tokenizer; where nobody here
    knows that, `$TOKENIZER` stands for it.
    """
    load, replicas = plan.candidate.load, plan.candidate.replicas
    if load.rate is not None:
        profile = f"kind=poisson,rate={load.rate * replicas:g}"
    else:
        profile = f"kind=concurrent,streams={max(1, round((load.concurrency or 1) * replicas))}"
    line = ["guidellm", "run", "--backend", f"kind=openai_http,target={url},model={plan.served_name}"]
    deviation = max(1, round(VARIATION * load.output_tokens))
    tokens = f"prompt_tokens={load.prompt_tokens},output_tokens={load.output_tokens},output_tokens_stdev={deviation}"
    # GuideLLM's own upper limit would be 5 deviations, which is the mean.
    limits = f"output_tokens_min=1,output_tokens_max={2 * load.output_tokens}"
    line += ["--data", f"kind=synthetic_text,{tokens},{limits}", "--profile", profile]
    line += ["--constraint", f"kind=max_duration,seconds={LOAD_TEST_SECONDS}"]
    line += ["--output", f"kind=json,path={output}"]
    if plan.mounted:  # the server's name for it is not on the hub
        line += ["--tokenizer", json.dumps({"kind": "huggingface_auto", "model": plan.tokenizer or TOKENIZER})]
    return line


def shell(line: Sequence[str]) -> str:
    """`line` for a POSIX shell: quoted, and broken before flags where it is long."""
    parts = [shlex.quote(part) for part in line]
    rows = [parts[0]]
    for part in parts[1:]:
        breaks = part.startswith("-") and len(rows[-1]) + len(part) > _WIDTH // 2
        rows = [*rows, part] if breaks else [*rows[:-1], f"{rows[-1]} {part}"]
    return " \\\n  ".join(rows)
