"""Calling the flow from a program: Prefect's failures in one line, and nothing of its tracebacks."""

from flows.parameters import ForgeConfig
from phases.errors import GateFailed, InputError


def run_flow(config: ForgeConfig) -> GateFailed | None:
    """Run the flow here, on the API that `PREFECT_API_URL` names or on a temporary server of its own.

    Returns the failed gate that stopped the chain, if one did. Raises `InputError` when the API cannot be reached.
    """
    from flows.forge_flow import forge

    try:
        forge(config)
    except GateFailed as failed:
        return failed
    except RuntimeError as error:
        if "Failed to reach API" not in str(error):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"Prefect: {reason}; start the server or unset PREFECT_API_URL") from None
    return None
