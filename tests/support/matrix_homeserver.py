"""A Matrix homeserver as far as an agent and its approvers need one.

The client-server API v1.11: `/versions`, `whoami`, `sync` with long polling and an inline filter,
`joined_rooms`, `joined_members`, `state/m.room.encryption`, `join`, and `send` whose transaction
ids are remembered. Events have the forms of the specification's examples. Only the standard
library is used.
"""

import fnmatch
import itertools
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

EVENT_BYTES = 65_536
AGENT, TOKEN = "@host-agent:home.example", "syt_agent"
ALICE, ERIN = "@alice:home.example", "@erin:home.example"
BOB = "@bob:home.example"
MALLORY = "@mallory:elsewhere.example"

Event = dict[str, Any]


@dataclass
class Room:
    """Who is in it, who is invited, and whether it is encrypted."""

    joined: list[str]
    invited: dict[str, int] = field(default_factory=dict)
    invite_state: list[Event] = field(default_factory=list)
    is_encrypted: bool = False


class Handler(BaseHTTPRequestHandler):
    """One exchange."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self._handle("GET")

    def do_PUT(self) -> None:
        self._handle("PUT")

    def do_POST(self) -> None:
        self._handle("POST")

    def _handle(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = urlsplit(self.path)
        path = parts.path.removeprefix("/_matrix/client")
        self.server.asked.append(f"{method} {path}")
        refusal = self.server.refusal_of(path)
        if refusal is not None:
            self._json(*refusal)
        elif path == "/versions":
            self._json(200, {"versions": ["r0.6.1", "v1.1", "v1.11"], "unstable_features": {}})
        elif (user := self.server.tokens.get(self._token())) is None:
            soft = {"errcode": "M_UNKNOWN_TOKEN", "error": "Unknown token", "soft_logout": False}
            self._json(401, soft)
        elif path == "/v3/sync":
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            self._json(*self.server.sync(user, query))
        else:
            self._json(*self.server.answer(method, path.split("/")[2:], user, body))

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _json(self, status: int, told: object, headers: Mapping[str, str] | None = None) -> None:
        data = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Be quiet."""


class Server(ThreadingHTTPServer):
    """The homeserver's state, and what it was asked."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, Handler)
        self.tokens = {TOKEN: AGENT}
        self.context: dict[str, Room] = {}
        self.events: list[tuple[str, Event]] = []
        self.sent: list[tuple[str, Event]] = []
        self.asked: list[str] = []
        self.refusals: list[tuple[str, int, object, dict[str, str]]] = []
        self.oldest = 0
        self.changed = threading.Condition()
        self.ending = False
        self._transactions: dict[tuple[str, str], str] = {}
        self._numbers = itertools.count(1)

    # -- what people do ---------------------------------------------------------------------------

    def make(self, room: str, *joined: str, is_encrypted: bool = False) -> str:
        """Make a room, with these people in it."""
        with self.changed:
            self.context[room] = Room(list(joined), is_encrypted=is_encrypted)
        return room

    def invite(self, room: str, *, by: str, user: str = AGENT) -> None:
        """Invite somebody, by whom."""
        member = {"membership": "invite", "displayname": "x"}
        event = {"type": "m.room.member", "state_key": user, "sender": by, "content": member}
        with self.changed:
            place = self.context.setdefault(room, Room([by]))
            place.invite_state.append(event)
            self.events.append((room, {**event, "event_id": self._event_id()}))
            place.invited[user] = len(self.events)
            self.changed.notify_all()

    def write(self, room: str, sender: str, body: str, **content: Any) -> str:
        """Write a text into a room, and return its event id."""
        return self.put(room, sender, {"msgtype": "m.text", "body": body, **content})

    def react(self, room: str, sender: str, event: str, key: str) -> str:
        """React to an event."""
        relation = {"rel_type": "m.annotation", "event_id": event, "key": key}
        return self.put(room, sender, {"m.relates_to": relation}, kind="m.reaction")

    def put(
        self,
        room: str,
        sender: str,
        content: Mapping[str, Any],
        *,
        kind: str = "m.room.message",
        **more: Any,
    ) -> str:
        """Put any event into a room, and return its id."""
        event = {
            "type": kind,
            "sender": sender,
            "content": dict(content),
            "event_id": self._event_id(),
            "origin_server_ts": int(time.time() * 1000),
            "unsigned": {"age": 3},
            **more,
        }
        with self.changed:
            self.events.append((room, event))
            self.changed.notify_all()
        return str(event["event_id"])

    def refuse(
        self,
        prefix: str,
        status: int,
        told: object,
        *,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Refuse the next calls whose path begins with `prefix`."""
        self.refusals += [(prefix, status, told, dict(headers or {}))] * times

    def texts(self) -> list[str]:
        """Return what the agent wrote, in its order."""
        return [event["content"]["body"] for _, event in self.sent]

    # -- what a client is answered ----------------------------------------------------------------

    def refusal_of(self, path: str) -> tuple[int, object, dict[str, str]] | None:
        with self.changed:
            for place, (prefix, status, told, headers) in enumerate(self.refusals):
                if path.startswith(prefix):
                    del self.refusals[place]
                    return status, told, headers
        return None

    def answer(
        self, method: str, parts: list[str], user: str, body: bytes
    ) -> tuple[int, dict[str, Any]]:
        if parts == ["account", "whoami"]:
            return 200, {"user_id": user, "device_id": "AGENT", "is_guest": False}
        with self.changed:
            if parts == ["joined_rooms"]:
                context = [room for room, place in self.context.items() if user in place.joined]
                return 200, {"joined_rooms": context}
            name = unquote(parts[1])
            room = self.context.get(name)
            if room is None or (user not in room.joined and parts[2] != "join"):
                return 403, {"errcode": "M_FORBIDDEN", "error": f"User {user} not in room {name}"}
            if parts[2] == "joined_members":
                return 200, {"joined": {one: {"display_name": "x"} for one in room.joined}}
            if parts[2:4] == ["state", "m.room.encryption"]:
                if room.is_encrypted:
                    return 200, {"algorithm": "m.megolm.v1.aes-sha2"}
                return 404, {"errcode": "M_NOT_FOUND", "error": "Event not found."}
            if method == "POST" and parts[2] == "join":
                return self._join(name, room, user)
            if method == "PUT" and parts[2:4] == ["send", "m.room.message"]:
                return self._send(name, user, parts[4], body)
        return 404, {"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}

    def _join(self, name: str, room: Room, user: str) -> tuple[int, dict[str, Any]]:
        if user not in room.invited:
            return 403, {"errcode": "M_FORBIDDEN", "error": "You are not invited to this room."}
        room.invited.pop(user)
        room.joined.append(user)
        self.changed.notify_all()
        return 200, {"room_id": name}

    def _send(
        self, room: str, user: str, transaction: str, body: bytes
    ) -> tuple[int, dict[str, Any]]:
        if len(body) > EVENT_BYTES:
            return 413, {"errcode": "M_TOO_LARGE", "error": "event too large"}
        known = self._transactions.get((user, transaction))
        if known is not None:
            return 200, {"event_id": known}
        event = {
            "type": "m.room.message",
            "sender": user,
            "content": json.loads(body),
            "event_id": self._event_id(),
            "origin_server_ts": int(time.time() * 1000),
            "unsigned": {"age": 3, "transaction_id": transaction},
        }
        self._transactions[user, transaction] = event["event_id"]
        self.events.append((room, event))
        self.sent.append((room, event))
        self.changed.notify_all()
        return 200, {"event_id": event["event_id"]}

    def sync(self, user: str, query: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        wanted = json.loads(query.get("filter", "{}"))
        since = query.get("since")
        start = 0
        if since is not None:
            start = int(since.removeprefix("s")) if since.removeprefix("s").isdigit() else -1
            if not self.oldest <= start <= len(self.events):
                return 400, {"errcode": "M_INVALID_PARAM", "error": "Invalid stream token"}
        end = time.monotonic() + int(query.get("timeout", "0")) / 1000
        with self.changed:
            while True:
                told = self._told(user, start, wanted)
                left = end - time.monotonic()
                if told or left <= 0 or self.ending:
                    return 200, {"next_batch": f"s{len(self.events)}", "rooms": told}
                self.changed.wait(left)

    def _told(self, user: str, start: int, wanted: Mapping[str, Any]) -> dict[str, Any]:
        timeline = wanted.get("room", {}).get("timeline", {})
        limit = int(timeline.get("limit", 10))
        joined: dict[str, Any] = {}
        for name, room in self.context.items():
            events = [
                event
                for place, event in self.events[start:]
                if place == name
                and any(fnmatch.fnmatch(event["type"], kind) for kind in timeline["types"])
            ]
            if user in room.joined and events:
                shown = events[-limit:]
                is_limited = len(shown) < len(events)
                batch = {"events": shown, "limited": is_limited, "prev_batch": f"t{start}"}
                joined[name] = {"timeline": batch, "state": {"events": []}}
        invited = {
            name: {"invite_state": {"events": room.invite_state}}
            for name, room in self.context.items()
            if room.invited.get(user, -1) > start
        }
        told = {"join": joined, "invite": invited}
        return {key: value for key, value in told.items() if value}

    def _event_id(self) -> str:
        return f"${next(self._numbers):043d}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Pass over what clients that went away leave behind."""


class Homeserver:
    """The homeserver on loopback in a thread of its own; `server` has its state."""

    def __init__(self, port: int = 0) -> None:
        self.server = Server(("127.0.0.1", port))
        self.port: int = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self.server.changed:
            self.server.ending = True
            self.server.changed.notify_all()
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()
