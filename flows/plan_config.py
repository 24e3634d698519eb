"""`PlanConfig`: what a deployment is planned for when a run has made its agent."""

from deployment.planning.request import Request
from deployment.planning.traffic import Lengths
from phases.strict import StrictModel


class PlanConfig(StrictModel):
    """The plan that a run ends with."""

    enabled: bool = True
    """Plan at all."""
    request: Request = Request(
        use_case="tool_agent",
        prompt=Lengths(mean=200, p95=400),
        output=Lengths(mean=40, p95=96),
        context=512,
        rank="cost",
    )
    """Traffic, objectives, what to choose from. The default asks for short turns: the agent of the laptop profile has
    room for 1,024 tokens."""
