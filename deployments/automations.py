"""Automations of Bookmill on a Prefect server: silent runs become Crashed, and, where the user named a target, alerts are sent.

Who sends the events: `flows/run_life.py` (heartbeats) and `flows/alerts.py`. Without a target nothing is sent anywhere.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound

from config.settings import Settings
from flows.alerts import EVENTS
from flows.run_life import CRASH_AUTOMATION, HEARTBEAT
from flows.run_record import MISSED_BEATS
from tasks.errors import UsageError

ALERT = "bookmill alert: "
WEBHOOK_BLOCK = "bookmill-alerts"
FLOWS = ("market-by-order", "depth-snapshots", "backfill")
# After one of these nobody waits for a heartbeat any more.
_OVER = ("Completed", "Failed", "Crashed", "Cancelled", "AwaitingRetry", "Scheduled", "Late", "Pending", "Paused", "Suspended", "TimedOut")
_LEAST_WITHIN_S = 10  # Prefect takes no shorter one


def crash_automation(settings: Settings) -> AutomationCore:
    """A run that sent a heartbeat and then neither another one nor its end is set to Crashed; from there it can be retried."""
    within = max(_LEAST_WITHIN_S, MISSED_BEATS * settings.heartbeat_s)
    return AutomationCore(
        name=CRASH_AUTOMATION,
        description=f"A run that is silent for {within:g} s was killed with its worker, or its machine is gone.",
        trigger=EventTrigger(
            after={HEARTBEAT},
            expect={HEARTBEAT, *(f"prefect.flow-run.{name}" for name in _OVER)},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=within),
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                force=False,
                state=StateType.CRASHED,
                message=f"No heartbeat for {within:g} s: the process is gone. Retry it here, or with `bookmill resume`; what is done is kept.",
            )
        ],
    )


def alert_automations(block: UUID) -> list[AutomationCore]:
    """One for each event of `flows.alerts`, and one for crashed runs, which cannot tell it themselves; `block`: who is notified."""
    found = [
        AutomationCore(
            name=f"{ALERT}{event.removeprefix('bookmill.')}",
            description=f"Notify when {what}.",
            trigger=EventTrigger(expect={event}, match=ResourceSpecification({"prefect.resource.id": ["bookmill.*"]}), posture=Posture.Reactive),
            actions=[_notify(block, f"Bookmill: {what}", "{{ event.payload.message }}")],
        )
        for event, what in EVENTS.items()
    ]
    crashed = AutomationCore(
        name=f"{ALERT}run.crashed",
        description="Notify when a run crashed.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Crashed"},
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            match_related=ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)}),
            posture=Posture.Reactive,
        ),
        actions=[_notify(block, "Bookmill: a run crashed", "{{ flow_run.name }} ({{ flow_run.id }}): {{ flow_run.state.message }}")],
    )
    return [*found, crashed]


def ensure_automations(client: SyncPrefectClient, settings: Settings, block: UUID | None) -> list[str]:
    """Create or update; a line for each that was changed, one for all that were not. Alerts of an earlier target stay unless a new one is given."""
    wanted = [crash_automation(settings), *(alert_automations(block) if block is not None else [])]
    lines = []
    for automation in wanted:
        existing = next(iter(client.read_automations_by_name(automation.name)), None)
        if existing is None:
            client.create_automation(automation)
            lines.append(f"created the automation {automation.name}")
        elif (existing.trigger, existing.actions, existing.description) != (automation.trigger, automation.actions, automation.description):
            client.update_automation(existing.id, automation.model_copy(update={"enabled": existing.enabled}))
            lines.append(f"changed the automation {automation.name}")
    if len(lines) < len(wanted):
        lines.append(f"{len(wanted) - len(lines)} of {len(wanted)} automations are there already")
    return lines


def webhook_block(url: str) -> UUID:
    """Save a notification block that posts {"text": ..., "title": ...} to `url`, which is kept as a secret; its id. Raises UsageError."""
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--notify-webhook is {url!r}; allowed: a URL such as https://hooks.example.com/services/T0")
    block = CustomWebhookNotificationBlock(
        name="Bookmill",
        url="{{address}}",
        json_data={"title": "{{subject}}", "text": "{{subject}}\n{{body}}"},
        secrets={"address": url},  # type: ignore[arg-type]  # pydantic makes a secret of it
        headers=None,
        cookies=None,
    )
    return block.save(WEBHOOK_BLOCK, overwrite=True)  # type: ignore[return-value]  # outside of an event loop it is no coroutine


def named_block(client: SyncPrefectClient, name: str) -> UUID:
    """Id of a notification block that the user made, given as TYPE/NAME as Prefect shows it. Raises UsageError."""
    kind, _, own = name.partition("/")
    try:
        found = client.read_block_document_by_name(own, kind).id if own else None
    except ObjectNotFound:
        found = None
    if found is None:
        raise UsageError(
            f"--notify-block is {name!r}; there is no such block. Allowed: TYPE/NAME as `prefect block ls` shows it, such as slack-webhook/desk "
            "or sendgrid-email/desk."
        )
    return found


def _notify(block: UUID, subject: str, body: str) -> SendNotification:
    return SendNotification(block_document_id=block, subject=subject, body=body)
