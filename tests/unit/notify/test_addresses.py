"""Which URLs and which addresses are sent to, each with what is refused beside it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.notify.addresses import MAX_URL_CHARACTERS, address_fault, target_of

SERVICE = target_of("https://chat.example/hook")
HERE = target_of("https://localhost:8443/hook")


def test_parts_of_a_url() -> None:
    target = target_of("https://Chat.Example.:8443/hook/a?b=c")
    assert (target.scheme, target.host, target.port) == ("https", "chat.example", 8443)
    assert target.path == "/hook/a?b=c"
    assert target.place == "chat.example:8443"
    assert not target.is_loopback


@pytest.mark.parametrize(
    ("url", "port", "place"),
    [
        ("https://chat.example", 443, "chat.example:443"),
        ("https://[fd00::1]/", 443, "[fd00::1]:443"),
        ("http://127.0.0.1:8080/", 8080, "127.0.0.1:8080"),
        ("http://127.9.9.9/", 80, "127.9.9.9:80"),
        ("http://[::1]:81/", 81, "[::1]:81"),
        ("http://localhost:82", 82, "localhost:82"),
        ("https://192.168.1.5", 443, "192.168.1.5:443"),
    ],
)
def test_urls_that_are_sent_to(url: str, port: int, place: str) -> None:
    target = target_of(url)
    assert (target.port, target.place, target.path) == (port, place, "/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "chat.example/hook",
        "http://chat.example/hook",
        "http://192.168.1.5/hook",
        "http://[::ffff:10.0.0.1]/",
        "ftp://chat.example/",
        "file:///etc/passwd",
        "HTTPS",
        "https://",
        "https:///hook",
        "https://user@chat.example/",
        "https://user:hunter2@chat.example/",
        "https://@chat.example/",
        "https://chat.example/#part",
        "https://chat.example/#",
        "https://chat.example:0/",
        "https://chat.example:65536/",
        "https://chat.example:x/",
        "https://[::1/",
        "https://chat.example/a b",
        "https://chat.example/a\n",
        "https://chat.example\\@evil.example/",
        "https://ch\u0430t.example/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[fd00:ec2::254]/",
        "https://[::ffff:169.254.169.254]/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://chat.example/" + "a" * MAX_URL_CHARACTERS,
    ],
)
def test_urls_that_are_not(url: str) -> None:
    with pytest.raises(ValueError, match=r"^it") as caught:
        target_of(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "93.184.215.14",
        "2606:2800:21f:cb07:6820:80da:af6b:8b2c",
        "10.0.0.1",
        "172.16.3.4",
        "192.168.1.5",
        "100.64.1.2",
        "fd12:3456::1",
        "64:ff9b::5db8:d70e",
        "2002:5db8:d70e::1",
    ],
)
def test_addresses_of_services(address: str) -> None:
    assert address_fault(address, target=SERVICE) is None


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("169.254.169.254", "link-local"),
        ("169.254.0.1", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("fd00:ec2::254", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("192.0.0.192", "reserved"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("0.0.0.0", "no machine's"),
        ("0.1.2.3", "no machine's"),
        ("::", "no machine's"),
        ("255.255.255.255", "reserved"),
        ("240.0.0.1", "reserved"),
        ("4000::1", "reserved"),
        ("127.0.0.1", "this machine"),
        ("127.1.2.3", "this machine"),
        ("::1", "this machine"),
        ("::ffff:169.254.169.254", "link-local"),
        ("::ffff:100.100.100.200", "metadata"),
        ("::ffff:127.0.0.1", "this machine"),
        ("::ffff:224.0.0.1", "multicast"),
        ("::ffff:0.0.0.0", "no machine's"),
        ("::169.254.169.254", "link-local"),
        ("64:ff9b::169.254.169.254", "link-local"),
        ("64:ff9b::127.0.0.1", "this machine"),
        ("2002:a9fe:a9fe::1", "link-local"),
        ("2001:0:5db8:d70e:0:0:5601:5601", "link-local"),
        ("chat.example", "not an IP address"),
        ("", "not an IP address"),
    ],
)
def test_addresses_of_no_service(address: str, fault: str) -> None:
    said = address_fault(address, target=SERVICE)
    assert said is not None
    assert fault in said


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_a_url_that_says_loopback_may_lead_there(address: str) -> None:
    assert address_fault(address, target=HERE) is None
    assert address_fault(address, target=SERVICE) is not None


def test_a_url_that_says_loopback_leads_to_no_metadata_either() -> None:
    assert address_fault("169.254.169.254", target=HERE) is not None


@given(st.ip_addresses(v=4, network="169.254.0.0/16"))
def test_no_guise_of_link_local_is_taken(address: object) -> None:
    for guise in ("{}", "::ffff:{}", "64:ff9b::{}", "::{}"):
        assert address_fault(guise.format(address), target=SERVICE) is not None


@given(st.text(max_size=40))
def test_no_text_makes_it_fail_otherwise(text: str) -> None:
    try:
        target_of(f"https://{text}")
    except ValueError:
        return


def test_plain_http_stays_on_this_machine_wherever_its_name_leads() -> None:
    plain = target_of("http://localhost:8080/hook")
    assert address_fault("127.0.0.1", target=plain) is None
    for address in ("10.0.0.1", "93.184.215.14", "fd00::1", "169.254.169.254"):
        assert address_fault(address, target=plain) is not None
