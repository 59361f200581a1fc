"""Actions on an incident: each changes a real row, is recorded, is taken back, and asks for the rights it needs anywhere else."""

from typing import Any

import pytest

from console.incidents import actions
from console.incidents.actions import ACTIONS, USUAL
from console.models import IncidentEntry, IncidentRun
from console.runbooks.words import ACTIONS as OFFERED
from console.runbooks.words import FACTS
from runs import switches
from runs.models import Undo
from tenants.errors import Refused
from tenants.models import AuditEntry
from tests.runtime.waiting import running
from tools import catalog, permissions
from tools.models import Breaker

from .incident_world import HOST, Trouble, make_trouble, state, wrote

pytestmark = pytest.mark.mission("P11.3")
TYPED = {"go_read_only": "writes", "stop_writes": "writes", "pause_agent": "support-triage", "pause_everything": "acme"}
LEAST = {  # action -> the least of them who may
    "disable_tool": "root", "enable_tool": "root", "deny_tool": "operator", "ask_people": "operator", "agent_drafts": "operator",
    "agent_read_only": "operator", "go_read_only": "approver", "stop_writes": "approver", "pause_agent": "approver",
    "pause_everything": "approver", "open_breaker": "operator", "reset_breaker": "operator", "roll_back": "root",
    "lower_ceiling": "admin", "undo_writes": "operator",
}  # fmt: skip
ORDER = ("viewer", "operator", "approver", "admin", "root")
TAKEN_BACK = sorted(set(LEAST) - {"reset_breaker", "undo_writes"})


@pytest.fixture
def trouble(db: None) -> Trouble:
    return make_trouble()


def do(trouble: Trouble, name: str, who: str = "root", reason: str = "it burns", **more: Any) -> IncidentEntry:
    given = {"typed": TYPED.get(name, ""), "value": "5"} | more
    return actions.carry_out(trouble.people[who], trouble.fresh(), name, None, reason, **given)


def refusal(trouble: Trouble, name: str, who: str = "root", **more: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        do(trouble, name, who, **more)
    return caught.value.status, caught.value.code


def test_what_a_step_may_offer_is_what_is_built() -> None:
    assert set(ACTIONS) == set(OFFERED) == set(LEAST)
    assert all(given <= FACTS | set(USUAL) for given in OFFERED.values())


@pytest.mark.parametrize("name", TAKEN_BACK)
def test_an_action_changes_rows_is_recorded_and_is_taken_back(trouble: Trouble, name: str) -> None:
    if name == "enable_tool":
        catalog.set_enabled(None, "create_ticket", False)
    before, audited = state(), AuditEntry.objects.count()
    entry = do(trouble, name)
    assert state() != before
    assert AuditEntry.objects.count() > audited
    assert (entry.kind, entry.actor, entry.data["action"]) == ("action", trouble.people["root"].user, name)
    assert entry.text.endswith("\nit burns")
    assert actions.standing(trouble.incident, list(trouble.incident.entries.all())) == {entry.pk}
    back = actions.take_back(trouble.people["root"], trouble.fresh(), entry.pk, "it is out")
    assert state() == before
    assert (back.data["takes_back"], back.text.endswith("\nit is out")) == (entry.pk, True)
    assert actions.standing(trouble.incident, list(trouble.incident.entries.all())) == set()
    with pytest.raises(Refused) as caught:
        actions.take_back(trouble.people["root"], trouble.fresh(), entry.pk, "again")
    assert caught.value.code == "not_standing"


@pytest.mark.parametrize("name", sorted(LEAST))
def test_an_action_asks_for_the_rights_of_what_it_does(trouble: Trouble, name: str) -> None:
    before, least = state(), ORDER.index(LEAST[name])
    for who in ORDER[:least]:
        assert refusal(trouble, name, who) == (403, "action_refused")
    assert state() == before
    place = actions.place_of(trouble.incident, name, None)
    assert all(not actions.may_not(trouble.people[who], trouble.incident, ACTIONS[name], place) for who in ORDER[least:])


def test_what_stood_before_comes_back_as_it_was(trouble: Trouble) -> None:
    admin, tenant = trouble.people["admin"], trouble.world.tenant
    permissions.set_permission(admin, "create_ticket", tenant, decision="allow", loosen=True)
    before = state()
    entry = do(trouble, "deny_tool", "admin")
    assert ("create_ticket", "acme", "", "deny", 1, False) in state()["permissions"]
    actions.take_back(admin, trouble.fresh(), entry.pk, "over")
    assert state() == before


def test_what_somebody_changed_since_is_not_taken_back(trouble: Trouble) -> None:
    entry = do(trouble, "deny_tool")
    permissions.set_permission(trouble.people["admin"], "create_ticket", trouble.world.tenant, decision="ask", approvers=3)
    with pytest.raises(Refused) as caught:
        actions.take_back(trouble.people["root"], trouble.fresh(), entry.pk, "over")
    assert caught.value.code == "not_standing"
    assert ("create_ticket", "acme", "", "ask", 3, False) in state()["permissions"]


def test_the_writes_of_an_agent_are_held_and_its_reads_go_on(trouble: Trouble) -> None:
    do(trouble, "agent_drafts", "operator")
    assert state()["permissions"] == [("create_ticket", "acme", "support-triage", "draft", 1, False)]


def test_a_breaker_that_is_held_open_is_reset(trouble: Trouble) -> None:
    do(trouble, "open_breaker", "operator")
    assert (Breaker.objects.get().host_port, Breaker.objects.get().forced) == (HOST, "open")
    do(trouble, "reset_breaker", "operator")
    assert Breaker.objects.get().forced == ""


def test_of_writes_that_were_made_twice_the_second_ones_are_proposed(trouble: Trouble) -> None:
    undo = ("undo_writes", None)
    assert [choice.again for choice in actions.preview(trouble.people["operator"], trouble.incident, *undo)[1].choices] == [False]
    again = running(trouble.world)
    wrote(again)
    IncidentRun.objects.create(incident=trouble.incident, run_id=again.pk, value=1)
    _, preview = actions.preview(trouble.people["operator"], trouble.incident, *undo)
    assert [choice.again for choice in preview.choices] == [False, True]
    assert preview.proposed == [f"{again.run_id}.1.1"] and "Chosen are those that were made before" in preview.says


def test_the_chosen_writes_of_its_runs_are_undone_and_no_others(trouble: Trouble) -> None:
    _, preview = actions.preview(trouble.people["operator"], trouble.incident, "undo_writes", None)
    [choice] = preview.choices
    assert preview.lasting and choice.key.endswith(".1.1")
    assert refusal(trouble, "undo_writes", "operator") == (422, "nothing_chosen")
    assert refusal(trouble, "undo_writes", "operator", chosen=("agt_x.1.1",)) == (409, "nothing_undone")
    entry = do(trouble, "undo_writes", "operator", chosen=(choice.key, "agt_x.1.1"))
    assert Undo.objects.get().tool == "close_ticket"
    assert "Started 1 undo. 1 could not be" in entry.text
    assert actions.standing(trouble.incident, list(trouble.incident.entries.all())) == set()


@pytest.mark.parametrize(
    ("name", "more", "code"),
    [
        ("deny_tool", {"reason": "  "}, "reason_missing"),
        ("go_read_only", {"typed": ""}, "typed_wrong"),
        ("pause_agent", {"typed": "writes"}, "typed_wrong"),
        ("lower_ceiling", {"value": "much"}, "bad_ceiling"),
        ("lower_ceiling", {"value": ""}, "bad_ceiling"),
    ],
)
def test_what_is_not_confirmed_changes_nothing(trouble: Trouble, name: str, more: dict[str, Any], code: str) -> None:
    before = state()
    assert refusal(trouble, name, **more) == (422, code)
    assert state() == before
    assert not trouble.incident.entries.filter(kind="action").exists()


def test_a_ceiling_is_only_lowered(trouble: Trouble) -> None:
    do(trouble, "lower_ceiling", value="5")
    assert refusal(trouble, "lower_ceiling", value="5") == (422, "not_lower")
    do(trouble, "lower_ceiling", value="2.5")
    assert state()["ceilings"] == [("acme", "support-triage", "cost_usd_per_day", 2_500_000)]


def test_twice_is_refused_and_says_so_on_the_button(trouble: Trouble) -> None:
    do(trouble, "disable_tool")
    assert refusal(trouble, "disable_tool") == (409, "already_done")
    known = actions.facts(trouble.incident)
    shown = {one.name: one.why_not for one in actions.of_card(trouble.people["root"], trouble.incident, known)}
    assert shown["disable_tool"] == "It is off already."


def test_nothing_is_done_about_one_that_is_resolved_but_what_was_done_is_taken_back(trouble: Trouble) -> None:
    entry = do(trouble, "go_read_only", "approver")
    trouble.incident.__class__.objects.filter(pk=trouble.incident.pk).update(state="resolved")
    assert refusal(trouble, "deny_tool") == (409, "action_refused")
    actions.take_back(trouble.people["approver"], trouble.fresh(), entry.pk, "over")
    assert switches.active(None) == ()


def test_the_numbers_before_the_button_are_of_now(trouble: Trouble) -> None:
    _, preview = actions.preview(trouble.people["root"], trouble.incident, "pause_agent", None)
    assert preview.says.startswith("1 run in flight and 0 queued wait until it is lifted. ")
    assert "In the last hour: 1 agent, 1 run, 1 call." in preview.says


def test_a_step_gives_its_own_parameters_and_no_address_gives_others(trouble: Trouble) -> None:
    entry = actions.carry_out(trouble.people["operator"], trouble.incident, "ask_people", 1, "careful")
    assert ("create_ticket", "acme", "", "ask", 2, False) in state()["permissions"]
    assert entry.data["step"] == 1
    for name, step in (("deny_tool", 1), ("ask_people", 9), ("format_disk", None)):
        with pytest.raises(Refused) as caught:
            actions.preview(trouble.people["root"], trouble.incident, name, step)
        assert caught.value.code == "not_found"


def test_an_incident_of_the_whole_installation_offers_what_its_people_may(trouble: Trouble) -> None:
    trouble.incident.__class__.objects.filter(pk=trouble.incident.pk).update(tenant=None)
    trouble.incident = trouble.fresh()
    do(trouble, "pause_everything", typed="everything")
    assert state()["switches"] == [("all", "pause")]
    assert refusal(trouble, "open_breaker") == (403, "action_refused")
