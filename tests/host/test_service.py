"""The agent as its own service under the shipped unit."""

from tests.support.installed import Host


def test_a_status_goes_from_outside_through_sudo_to_another_user(host: Host) -> None:
    answer = host.ask("git.status", {"repository": "/srv/app"})
    assert answer.status_code == 200, answer.text
