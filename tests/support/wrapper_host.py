"""What an adapter declares, run through real wrappers on a host of the test's own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from host_agent.canonical import JsonValue
from host_agent.operations.catalogue import Inspection, Invocation, Operation, Output


class WrapperHost(ABC):
    """A place where wrappers run; how they do is the subclass's own."""

    @abstractmethod
    def wrapper(
        self, name: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> Output:
        """Run a wrapper inside."""

    def invoke(self, invocation: Invocation) -> Output:
        """Run an invocation of an adapter."""
        return self.wrapper(invocation.wrapper, *invocation.arguments)

    def inspect(self, asked: Operation) -> Inspection:
        """Run the inspection of a change; raise what the adapter makes of a failure."""
        spec = asked.spec
        assert spec.inspect is not None
        assert spec.parse_inspection is not None
        output = self.invoke(spec.inspect(asked.params))
        if output.exit_code != 0:
            raise spec.failure(asked.params, output)
        return spec.parse_inspection(asked.params, output)

    def perform(
        self, asked: Operation, precondition: Mapping[str, JsonValue] | None = None
    ) -> Output:
        """Run an operation; a change is bound to what was found before, or is found now."""
        if precondition is None:
            precondition = {} if asked.spec.inspect is None else self.inspect(asked).precondition
        return self.invoke(asked.spec.invoke(asked.params, precondition))

    def probe(self, asked: Operation, precondition: Mapping[str, JsonValue]) -> bool:
        """Run the probe of an operation and return what it saw."""
        spec = asked.spec
        assert spec.probe is not None
        assert spec.parse_probe is not None
        output = self.invoke(spec.probe(asked.params, precondition))
        return output.exit_code == 0 and spec.parse_probe(asked.params, precondition, output)
