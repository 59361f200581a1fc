"""The names that telemetry uses, and nothing else does: OpenTelemetry's semantic conventions 1.41.0 (GenAI: in development there).

`signalbox.` is ours: what the conventions have no name for.
"""

from typing import Final

from runs.events import Kind

CONVENTIONS: Final = "1.41.0"
SCHEMA_URL: Final = f"https://opentelemetry.io/schemas/{CONVENTIONS}"

# operations, which begin the names of spans
INVOKE_AGENT: Final = "invoke_agent"
CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
AGENT_NAME: Final = "gen_ai.agent.name"
CONVERSATION: Final = "gen_ai.conversation.id"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_TYPE: Final = "gen_ai.tool.type"
EXTENSION: Final = "extension"  # of tool types: run on the agent's side
# content
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"

ERROR_TYPE: Final = "error.type"
STATUS_CODE: Final = "http.response.status_code"
SERVICE_NAME: Final = "service.name"
OTHER: Final = "_OTHER"  # for what is no name that we know

RUN: Final = "signalbox.run_id"
TENANT: Final = "signalbox.tenant"
RELEASE: Final = "signalbox.release"
STATE: Final = "signalbox.state"
OUTCOME: Final = "signalbox.outcome"
DEGRADED: Final = "signalbox.degraded"
STEPS: Final = "signalbox.steps"
COST: Final = "signalbox.cost_usd"
STEP: Final = "signalbox.step"
ORD: Final = "signalbox.ord"
CALL: Final = "signalbox.call_id"
ATTEMPT: Final = "signalbox.attempt"
ROLE: Final = "signalbox.role"
RESULT: Final = "signalbox.result"
LOST: Final = "signalbox.lost"  # nobody was there to take the answer: the end is when that was seen
RETRYABLE: Final = "signalbox.retryable"
STOP_LIMIT: Final = "signalbox.stop.limit"

# Of an event's data, what is told as `signalbox.<name>`: codes, numbers and references. Whatever is not listed stays here.
TOLD: Final = (
    "age_s", "approval_id", "as", "at", "attempt", "checks", "decision", "do", "from", "how", "last_step", "limit", "lost", "n",
    "needed", "of", "on", "outcome", "reason", "resend", "result", "results", "rev", "role", "seen", "sent", "share", "state",
    "status", "switch", "times", "to", "unknown_id", "used", "value", "verdict", "wait_ms",
)  # fmt: skip
RULED: Final = (Kind.POLICY_DECIDED, Kind.POLICY_VIOLATED)  # here `by` is a rule; elsewhere it may be a person
