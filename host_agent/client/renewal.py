"""The exchange that renews this client's certificate, for `Client.administer`."""

from collections.abc import Callable

from host_agent.api.wire.people import RenewalAnswer
from host_agent.client.exchange import Protocol, Steps


def renewal(request: str, proof: str) -> Callable[[Protocol], Steps[RenewalAnswer]]:
    """Ask for a certificate for the key of `request`, PEM; `proof` is the old key's signature.

    Asked again with the same request it is the same renewal.
    """

    def steps(protocol: Protocol) -> Steps[RenewalAnswer]:
        body = {"request": request, "proof": proof}
        return RenewalAnswer.parse((yield from protocol.act("/renewal", body)))

    return steps
