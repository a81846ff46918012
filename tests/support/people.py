"""Approvers who are reached over channels, and what they send, for tests of the pipeline."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from host_agent.notify.channel import ChannelReply
from host_agent.requests import codes
from host_agent.requests.model import Request
from host_agent.requests.notification import CodeHash, DeliveryState, Purpose
from tests.support.audit_files import NOW
from tests.support.pipeline import Workbench
from tests.support.site import IDENTITIES

ALICE = "3f0a1b2c-0000-4000-8000-00000000a11c"
ERIN = "3f0a1b2c-0000-4000-8000-00000000e419"
BOB = "3f0a1b2c-0000-4000-8000-000000000b0b"
STRANGER = "3f0a1b2c-0000-4000-8000-0000000057a9"

CHANNELS = """
[channels.signal]
socket = "/run/signal-cli/socket"
account = "+431234567"
[channels.webhook]
url = "https://chat.example/hook"
secret_file = "pki/hook"
[channels.ntfy]
url = "https://ntfy.example"
reply_topic = "replies"
"""
ALICE_ENTRY = f"""
[[approvers]]
owner = "Alice"
signal = "{ALICE}"
ntfy_topic = "alices-long-random-topic"
channels = ["signal", "ntfy"]
"""
ERIN_ENTRY = f"""
[[approvers]]
owner = "erin"
signal = "{ERIN}"
channels = ["signal", "webhook"]
"""
BOB_ENTRY = f"""
[[approvers]]
owner = "bob"
signal = "{BOB}"
channels = ["signal"]
"""
BRIDGE = """
[[bridges]]
cn = "chat-bridge"
secret_file = "pki/bridge"
[bridges.approvers]
U1 = "Erin"
"""
PEOPLE = CHANNELS + ALICE_ENTRY + ERIN_ENTRY + BOB_ENTRY
IDENTITIES_AND_BRIDGE = f"""{IDENTITIES}
[[identities]]
cn = "chat-bridge"
owner = "chat"
roles = ["bridge"]
"""


@dataclass
class Chat:
    """What people send to the agent of a workbench."""

    bench: Workbench
    references: "count[int]" = field(default_factory=lambda: count(1))

    def message(self, text: str, *, by: str = ALICE, channel: str = "signal") -> ChannelReply:
        """Return a message that is sent now."""
        return ChannelReply(
            channel=channel,
            address=by,
            text=text,
            sent_at=self.bench.clock.now(),
            reference=f"{next(self.references)}",
        )

    async def say(self, text: str, *, by: str = ALICE, channel: str = "signal") -> str | None:
        """Send a message and return what is answered; what it started has ended."""
        answer = await self.bench.pipeline.replies.hear(self.message(text, by=by, channel=channel))
        await self.bench.settle()
        return answer

    async def react(
        self, reference: str, *, text: str = "", reaction: str | None = None, by: str = ALICE
    ) -> str | None:
        """Answer or react to a prompt, and return what is answered."""
        heard = replace(self.message(text, by=by), quotes=reference, reaction=reaction)
        answer = await self.bench.pipeline.replies.hear(heard)
        await self.bench.settle()
        return answer

    async def code(
        self,
        request: Request,
        owner: str = "alice",
        *,
        channel: str = "signal",
        purpose: Purpose = Purpose.CONFIRM,
    ) -> str:
        """Return a code that is made for a request and an owner, as the outbox makes it."""
        code = codes.make()
        made = CodeHash(
            request_id=request.id,
            owner=owner,
            channel=channel,
            purpose=purpose,
            code_hash=codes.hash_code(code),
        )
        if not await self.bench.store.add_code(made):
            message = "the request is not pending"
            raise LookupError(message)
        return code

    async def deliver(self, request: Request, owner: str = "alice", *, as_: str = "100") -> None:
        """Deliver an owner's Signal prompt, as the outbox does, under the reference `as_`."""
        rows = await self.bench.store.notifications_of(request.id)
        row = next(row for row in rows if (row.owner, row.channel) == (owner, "signal"))
        sent = replace(
            row,
            state=DeliveryState.DELIVERED,
            tries=1,
            delivered_at=self.bench.clock.now(),
            reference=as_,
        )
        if not await self.bench.store.settle_notification(sent, expected_tries=0):
            message = "somebody else has settled it"
            raise LookupError(message)


SENT = int(NOW.timestamp() * 1000) + 1000


def envelope(
    text: str,
    aci: str = ALICE,
    account: str = "+431234567",
    *,
    said: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return what signal-cli-rest-api posts of a message."""
    message = {"timestamp": SENT, "message": text, **(said or {})}
    return {
        "envelope": {"sourceUuid": aci, "timestamp": SENT, "dataMessage": message},
        "account": account,
    }
