"""What a step of a runbook may offer to do, by name, and what it may name in it. Pure.

console.incidents.actions knows how each is done; a test holds the two lists to each other.
"""

FACTS = frozenset({"tool", "agent", "model", "tenant", "host"})  # what an incident may know: `{tool}` stands for its tool
ACTIONS: dict[str, frozenset[str]] = {  # name -> its parameters, all of them needed
    "disable_tool": frozenset({"tool"}),
    "enable_tool": frozenset({"tool"}),
    "deny_tool": frozenset({"tool"}),
    "ask_people": frozenset({"tool", "approvers"}),
    "agent_drafts": frozenset({"agent"}),
    "agent_read_only": frozenset({"agent"}),
    "go_read_only": frozenset(),
    "stop_writes": frozenset(),
    "pause_agent": frozenset({"agent"}),
    "pause_everything": frozenset(),
    "open_breaker": frozenset({"host"}),
    "reset_breaker": frozenset({"host"}),
    "roll_back": frozenset({"agent"}),
    "lower_ceiling": frozenset({"agent", "kind"}),
    "undo_writes": frozenset(),
}
