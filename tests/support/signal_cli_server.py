"""The daemon of signal-cli on its unix socket, as far as the agent needs it. No Signal behind it.

It speaks JSON-RPC, one object a line: `version`, `listAccounts` (with several accounts only, as the
real one), `subscribeReceive`, `send`; and it brings `receive` notifications in both forms. In the
mode `on-connection` what arrives waits until a client is attached, in `manual` until one has asked,
in `on-start` it is lost where nobody is. Each `send` takes the next scripted answer, or succeeds:

    {"type": "IDENTITY_FAILURE"}              a result of that type; more members go into it
    {"error": {"code": -5, "message": ""}}    an error
    {"raw": "..."}                            that line
    {"hold": true}                            no answer
    {"drop": true}                            hang up

Only the standard library is used. As a program it can stand in for the daemon on a host:

    python3 signal_cli_server.py --socket PATH --control PATH [--state FILE] [--mode on-connection]
        [--account +431234 ...] [--single]

It says "ready" and serves until it is ended. With --state it goes on after a restart where it was.
The control socket takes one JSON object a line and answers each with one, `{"ok": ...}` or
`{"fault": "..."}`:

    {"do": "sent"}                                every message that was sent: the params of `send`
                                                  and its timestamp
    {"do": "wait", "count": 3, "seconds": 10}     the same, once there are so many
    {"do": "deliver", "params": {"envelope": {}}} let that arrive
    {"do": "say", "aci": "...", "text": "...", "quotes": 1}    let somebody write; returns the time
    {"do": "react", "aci": "...", "emoji": "...", "target": 1} let somebody react
    {"do": "script", "answers": [...]}            what the next `send`s get
    {"do": "raw", "line": "..."}                  say that line to everybody
    {"do": "drop"}                                hang up on everybody
    {"do": "clients"}                             how many are attached
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ACCOUNT = "+431234"
ACCOUNT_ACI = "0f0e0d0c-0b0a-4908-8706-050403020100"
ALICE = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed"
BOB = "6ec0bd7f-11c0-43da-975e-2a8ad9ebae0b"
MAX_LINE = 16 * 1024 * 1024


def envelope(aci: str | None, stamp: int, **parts: Any) -> dict[str, Any]:
    """Return what arrives from one person, as `params`; `parts` go into the envelope."""
    return {
        "envelope": {
            "source": aci,
            "sourceNumber": None,
            "sourceUuid": aci,
            "sourceName": "Somebody",
            "sourceDevice": 1,
            "timestamp": stamp,
            "serverReceivedTimestamp": stamp + 1,
            "serverDeliveredTimestamp": stamp + 2,
            **parts,
        },
        "account": ACCOUNT,
    }


def said(aci: str, text: str, stamp: int, *, quotes: int | None = None) -> dict[str, Any]:
    """Return a message with text; `quotes` is the time of a message of ours that it answers."""
    data: dict[str, Any] = {
        "timestamp": stamp,
        "message": text,
        "expiresInSeconds": 0,
        "isExpirationUpdate": False,
        "viewOnce": False,
    }
    if quotes is not None:
        data["quote"] = {
            "id": quotes,
            "author": ACCOUNT,
            "authorNumber": ACCOUNT,
            "authorUuid": ACCOUNT_ACI,
            "text": "host-agent on tank",
            "attachments": [],
        }
    return envelope(aci, stamp, dataMessage=data)


def reacted(aci: str, emoji: str, target: int, stamp: int) -> dict[str, Any]:
    """Return a reaction to a message of ours."""
    reaction = {
        "emoji": emoji,
        "targetAuthor": ACCOUNT,
        "targetAuthorNumber": ACCOUNT,
        "targetAuthorUuid": ACCOUNT_ACI,
        "targetSentTimestamp": target,
        "isRemove": False,
    }
    data = {"timestamp": stamp, "message": None, "expiresInSeconds": 0, "reaction": reaction}
    return envelope(aci, stamp, dataMessage=data)


class Client:
    """One connection."""

    def __init__(self, writer: asyncio.StreamWriter, *, is_attached: bool) -> None:
        self.writer = writer
        self.is_attached = is_attached
        self.subscriptions: list[int] = []

    @property
    def receives(self) -> bool:
        return self.is_attached or bool(self.subscriptions)

    def write(self, message: Mapping[str, Any]) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")

    def notify(self, params: Mapping[str, Any]) -> None:
        if self.is_attached:
            self.write({"jsonrpc": "2.0", "method": "receive", "params": params})
        for number in self.subscriptions:
            wrapped = {"subscription": number, "result": params}
            self.write({"jsonrpc": "2.0", "method": "receive", "params": wrapped})


class SignalCliServer:
    """The daemon. Its state outlives `stop` and `start`."""

    def __init__(
        self,
        socket: Path,
        *,
        mode: str = "on-connection",
        accounts: tuple[str, ...] = (ACCOUNT,),
        is_single: bool = False,
        state: Path | None = None,
    ) -> None:
        self.socket = socket
        self.mode = mode
        self.accounts = accounts
        self.is_single = is_single
        self.version = "0.14.6"
        self.called: list[dict[str, Any]] = []
        self.sent: list[dict[str, Any]] = []
        self.waiting: deque[dict[str, Any]] = deque()
        self.answers: deque[dict[str, Any]] = deque()
        self.broken: set[str] = set()
        self.clients: list[Client] = []
        self._state = state
        self._clock = int(time.time() * 1000)
        self._subscribed = 0
        self._changed = asyncio.Condition()
        self._server: asyncio.AbstractServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        if state is not None and state.exists():
            kept = json.loads(state.read_text())
            self.sent, self.waiting = kept["sent"], deque(kept["waiting"])

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await listen(self.socket, self._serve)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop()
        self.socket.unlink(missing_ok=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stamp(self) -> int:
        """Return a time that no other message has."""
        self._clock = max(self._clock + 1, int(time.time() * 1000))
        return self._clock

    # -- what arrives -----------------------------------------------------------------------------

    def deliver(self, params: dict[str, Any]) -> None:
        receiving = [client for client in self.clients if client.receives]
        if not receiving and self.mode == "on-start":
            return
        if not receiving:
            self.waiting.append(params)
            self._save()
        for client in receiving:
            client.notify(params)

    def say(self, aci: str, text: str, *, quotes: int | None = None) -> int:
        stamp = self.stamp()
        self.deliver(said(aci, text, stamp, quotes=quotes))
        return stamp

    def react(self, aci: str, emoji: str, target: int) -> int:
        stamp = self.stamp()
        self.deliver(reacted(aci, emoji, target, stamp))
        return stamp

    def raw(self, line: bytes) -> None:
        for client in self.clients:
            client.writer.write(line + b"\n")

    def drop(self) -> None:
        for client in self.clients:
            client.writer.transport.abort()
        self.clients.clear()

    async def until(self, is_so: Callable[[], bool], seconds: float = 120.0) -> None:
        """Wait until something is so; asked after each call and each connection."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(is_so)

    async def wait_sent(self, count: int, seconds: float = 120.0) -> list[dict[str, Any]]:
        await self.until(lambda: len(self.sent) >= count, seconds)
        return self.sent

    # -- what is called ---------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        client = Client(writer, is_attached=self.mode != "manual")
        self.clients.append(client)
        try:
            self._bring(client)
            await self._tell()
            async for line in reader:
                self._call(client, line)
                await self._tell()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            if client in self.clients:
                self.clients.remove(client)
            self._tasks.discard(task)
            writer.close()
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _bring(self, client: Client) -> None:
        while client.receives and self.waiting:
            client.notify(self.waiting.popleft())
        self._save()

    def _call(self, client: Client, line: bytes) -> None:
        call = json.loads(line)
        assert call["jsonrpc"] == "2.0"
        assert isinstance(call["id"], str)
        self.called.append(call)
        method, params = call["method"], dict(call.get("params") or {})
        account = params.pop("account", None)
        if method in self.broken:
            self._fail(client, call, -32603, "Internal error")
        elif not self.is_single and account is not None and account not in self.accounts:
            self._fail(client, call, -32602, "Specified account does not exist")
        elif method == "version":
            self._result(client, call, {"version": self.version})
        elif method == "listAccounts" and not self.is_single:
            self._result(client, call, [{"number": number} for number in self.accounts])
        elif method == "subscribeReceive":
            self._subscribed += 1
            client.subscriptions.append(self._subscribed)
            self._result(client, call, self._subscribed)
            self._bring(client)
        elif method == "send" and (account is not None or self.is_single):
            self._send(client, call, params)
        elif method == "send":
            self._fail(client, call, -32602, "Method requires valid account parameter")
        else:
            self._fail(client, call, -32601, "Method not implemented")

    def _send(self, client: Client, call: Mapping[str, Any], params: dict[str, Any]) -> None:
        answer = self.answers.popleft() if self.answers else {"type": "SUCCESS"}
        if "drop" in answer:
            client.writer.transport.abort()
        elif "raw" in answer:
            client.writer.write(answer["raw"].encode() + b"\n")
        elif "error" in answer:
            client.write({"jsonrpc": "2.0", "error": answer["error"], "id": call["id"]})
        elif "hold" not in answer:
            ends = answer.pop("ends", False)
            stamp = self.stamp()
            address = {"uuid": params["recipient"][0], "number": None, "username": None}
            result = {"recipientAddress": address, **answer}
            if answer["type"] == "SUCCESS":
                self.sent.append({**params, "timestamp": stamp})
                self._save()
            self._result(client, call, {"timestamp": stamp, "results": [result]})
            if ends:
                client.writer.close()

    def _result(self, client: Client, call: Mapping[str, Any], result: object) -> None:
        client.write({"jsonrpc": "2.0", "result": result, "id": call["id"]})

    def _fail(self, client: Client, call: Mapping[str, Any], code: int, message: str) -> None:
        error = {"code": code, "message": message, "data": None}
        client.write({"jsonrpc": "2.0", "error": error, "id": call["id"]})

    def _save(self) -> None:
        if self._state is not None:
            told = json.dumps({"sent": self.sent, "waiting": list(self.waiting)})
            new = self._state.with_suffix(".new")
            new.write_text(told)
            new.replace(self._state)


async def listen(
    path: Path,
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> asyncio.AbstractServer:
    """Listen on a unix socket, in place of one that was left behind."""
    path.unlink(missing_ok=True)
    return await asyncio.start_unix_server(serve, str(path), limit=MAX_LINE)


class Control:
    """The control socket of the program."""

    def __init__(self, server: SignalCliServer) -> None:
        self._server = server

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            async for line in reader:
                try:
                    told = {"ok": await self._do(json.loads(line))}
                except Exception as error:  # noqa: BLE001 - told to whoever asked
                    told = {"fault": f"{type(error).__name__}: {error}"}
                writer.write(json.dumps(told).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _do(self, wish: dict[str, Any]) -> object:
        server, what = self._server, wish.pop("do")
        match what:
            case "sent":
                return server.sent
            case "wait":
                return await server.wait_sent(wish["count"], wish.get("seconds", 10.0))
            case "say":
                return server.say(wish["aci"], wish["text"], quotes=wish.get("quotes"))
            case "react":
                return server.react(wish["aci"], wish["emoji"], wish["target"])
            case "clients":
                return len(server.clients)
            case "deliver":
                server.deliver(wish["params"])
            case "script":
                server.answers.extend(wish["answers"])
            case "raw":
                server.raw(wish["line"].encode())
            case "drop":
                server.drop()
            case _:
                message = f"cannot {what}"
                raise ValueError(message)
        return None


async def run(args: argparse.Namespace) -> None:
    server = SignalCliServer(
        args.socket,
        mode=args.mode,
        accounts=tuple(args.account or [ACCOUNT]),
        is_single=args.single,
        state=args.state,
    )
    async with server:
        args.socket.chmod(args.permissions)
        control = await listen(args.control, Control(server).serve)
        print("ready", flush=True)
        async with control:
            await control.serve_forever()


def main() -> int:
    parser = argparse.ArgumentParser(description="Stand in for the daemon of signal-cli.")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--state", type=Path)
    parser.add_argument(
        "--mode", choices=["on-start", "on-connection", "manual"], default="on-connection"
    )
    parser.add_argument("--account", action="append")
    parser.add_argument("--single", action="store_true")
    parser.add_argument("--permissions", type=lambda text: int(text, 8), default=0o660)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
