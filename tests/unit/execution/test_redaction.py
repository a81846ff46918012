"""What is taken out of output, and what must stay readable."""

import base64
import importlib
import inspect
import pkgutil
import re
import time

import detect_secrets.plugins
import pytest
from detect_secrets.plugins.base import RegexBasedDetector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from host_agent.execution import redaction
from host_agent.execution.redaction import MARK, redact, redact_output
from host_agent.operations.catalogue import Output
from host_agent.operations.git.output import parse_log

# Made for this test: they open nothing.
LETTERS = "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC2dF4hJ6kL8nP0rS2uV4xY6"
PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\n" + "b3BlbnNzaC1rZXk\n" * 5
TOKENS = {
    "aws access key": "AKIA" + "Q3EGR7ZJ5W2KX4MN",
    "github": "ghp_" + LETTERS[:36],
    "github fine-grained": "github_pat_" + LETTERS[:40],
    "gitlab": "glpat-" + LETTERS[:20],
    "slack": "xoxb-" + "1234567890-" + LETTERS[:24],
    "slack hook": "hooks.slack.com/services/T12345678/B12345678/" + LETTERS[:24],
    "stripe": "sk_live_" + LETTERS[:24],
    "sendgrid": f"SG.{LETTERS[:22]}.{LETTERS[:43]}",
    "twilio": "AC" + "0123456789abcdef" * 2,
    "npm": "npm_" + LETTERS[:36],
    "pypi": "pypi-AgEIcHlwaS5vcmc" + LETTERS * 2,
    "telegram": "110201543:AAH" + LETTERS[:32],
    "openai": "sk-" + LETTERS[:20] + "T3BlbkFJ" + LETTERS[:20],
    "mailchimp": "0123456789abcdef" * 2 + "-us12",
    "square": "sq0csp-" + LETTERS[:43],
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0." + LETTERS[:43],
    "vault": "hvs." + LETTERS[:24],
}

ASCII = st.characters(max_codepoint=127)
PARTS = [
    *(
        " ",
        "\n",
        "=",
        ":",
        ".",
        "tank/media\t12\n",
        "key",
        "Token: ",
        "PASSWORD=",
        "pa\u017fsword=",
    ),
    *("to\u212aen = ", LETTERS, LETTERS[:24], "://user:", "pass@", "BEGIN ", "é"),
]


@pytest.mark.promise("c49")
@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
@pytest.mark.parametrize("around", ["{}", "remote: {} ok", 'x="{}"\n', "https://h/{}?a=1"])
def test_a_token_is_taken_out(token: str, around: str) -> None:
    text = redact(around.format(token))
    assert token not in text
    assert MARK in text


@pytest.mark.promise("c49")
@pytest.mark.parametrize("token", TOKENS.values(), ids=TOKENS)
def test_a_token_inside_base64_is_taken_out(token: str) -> None:
    encoded = base64.b64encode(f"user:{token}\n".encode()).decode()
    assert redact(f"auth {encoded} end") == f"auth {MARK} end"


@pytest.mark.promise("c49")
@pytest.mark.parametrize(
    "line",
    [
        "password=hunter22",
        "PASSWORD: 'hunter22'",
        '{"db_password": "hunter22"}',
        "export API_KEY=hunter22",
        "Authorization: Bearer hunter22",
        "client-secret => hunter22",
        "https://user:hunter22@example.org/x.git",
        "aws_secret_access_key = 'hunter22hunter22hunter22hunter22hunter22'",
    ],
)
def test_what_is_assigned_to_a_secret_name_is_taken_out(line: str) -> None:
    text = redact(line)
    assert "hunter22" not in text
    assert MARK in text


@pytest.mark.promise("c49")
def test_a_private_key_of_many_lines_is_taken_out() -> None:
    whole = f"before\n{PEM}-----END OPENSSH PRIVATE KEY-----\nafter"
    assert redact(whole) == f"before\n{MARK}\nafter"


@pytest.mark.promise("c49")
def test_a_private_key_in_a_long_text_is_not_divided() -> None:
    filler = "an ordinary line of some length\n"
    key = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEowIBAAKCAQEA\n" * 100
    for lines in range(960, 1050, 3):
        whole = filler * lines + key + "-----END RSA PRIVATE KEY-----\n" + filler * 500
        assert redact(whole) == filler * lines + MARK + "\n" + filler * 500


@pytest.mark.promise("c49")
def test_a_private_key_that_was_cut_is_taken_out() -> None:
    assert redact(f"before\n{PEM}") == f"before\n{MARK}"


@pytest.mark.promise("c49")
def test_a_token_that_the_cap_cut_in_two_does_not_stay() -> None:
    half = TOKENS["github"][:20]
    output = redact_output(Output(exit_code=0, stdout=f"line one\nkey {half}", truncated=True))
    assert output.stdout == "line one\nkey "


@pytest.mark.parametrize(
    "text",
    [
        "# branch.oid 8d5f2f4cd2535b6ea49e80ed606a3fef3c85e718\n# branch.head main\n",
        "tank/media\t123456789012\t1700000000\n",
        "nginx.service - A high performance web server and a reverse proxy server",
        "1 .M N... 100644 100644 100644 f00c965d8307308469e537302baa73048488f162 README.md",
        "sha256:7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730",
        "commit message: rotate the tokens and the passwords",
        "aGVsbG8gd29ybGQsIHRoaXMgaXMganVzdCB0ZXh0",
        "https://example.org:8443/path",
    ],
)
def test_ordinary_output_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("end", ["password:", "the token =", "a secret: "])
def test_a_line_that_ends_with_a_name_of_a_secret_takes_nothing_of_the_next(end: str) -> None:
    record = "commit {}\nauthor Ann\nemail ann@example.org\ndate 2026\nsubject {}\n\n"
    log = record.format("a" * 40, end) + record.format("b" * 40, "more")
    assert redact(log) == log
    assert parse_log(Output(exit_code=0, stdout=redact(log)))


def test_sizes_and_hash_stay_those_of_what_was_printed() -> None:
    output = Output(exit_code=0, stdout="password=hunter22", stdout_bytes=17, stdout_sha256="ab")
    clean = redact_output(output)
    assert (clean.stdout, clean.stdout_bytes, clean.stdout_sha256) == (f"password={MARK}", 17, "ab")


@given(st.text(max_size=300))
def test_redaction_is_stable(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


FORMS = [
    (group, form, with_case)
    for group in redaction._GROUPS
    for whole in group.forms
    for form in (whole.replace("++", "+").replace("}+", "}"),)
    for with_case in ((False, True) if "(?i:" in form else (False,))
]


@pytest.mark.promise("c49")
@pytest.mark.parametrize(("group", "form", "with_case"), FORMS)
@given(data=st.data())
@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
def test_a_group_is_searched_wherever_one_of_its_expressions_matches(
    data: st.DataObject, group: redaction._Group, form: str, with_case: bool
) -> None:
    text = data.draw(st.from_regex(re.compile(form, re.ASCII), alphabet=ASCII))
    text = text.swapcase() if with_case else text
    if re.search(form, text) is not None:
        assert group in redaction._groups_in(text)


@given(st.lists(st.sampled_from([*TOKENS.values(), PEM, *PARTS]), max_size=12))
def test_what_is_searched_for_changes_no_answer(parts: list[str]) -> None:
    text = "".join(parts)
    everything = redaction._expression(redaction._GROUPS)
    assert redaction._substitute(text) == everything.sub(redaction._replaced, text)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit", ["a", "a=", "password", "-----BEGIN ", "://a:", "eyJ", "aws key ", "A"]
)
def test_no_text_makes_it_slow(unit: str) -> None:
    redact(unit * (200_000 // len(unit)))


@pytest.mark.parametrize("unit", ["sk-", "-eyJ", "BEGIN ", "-----BEGIN A ", "sk-" + 19 * "a" + "-"])
def test_beginnings_of_secrets_in_a_row_do_not_hold_up_the_agent(unit: str) -> None:
    def seconds(text: str) -> float:
        begun = time.thread_time()
        redact(text)
        return time.thread_time() - begun

    size = 64_000  # what is searched on the event loop, in one piece
    searched = "a key. AP ://\n" + "some words " * (size // 11)  # for everything
    assert redaction._groups_in(searched) == redaction._GROUPS
    plain = min(seconds(searched) for _ in range(3))
    assert min(seconds(unit * (size // len(unit))) for _ in range(2)) < 12 * plain


SAMPLES = {
    "ArtifactoryDetector": "artif-key:AKC" + LETTERS[:30],
    "AWSKeyDetector": TOKENS["aws access key"],
    "AzureStorageKeyDetector": "AccountKey=" + LETTERS[:86].ljust(86, "x") + "==",
    "BasicAuthDetector": "https://user:hunter22@example.org",
    "CloudantDetector": "cloudant_password='" + "abcdef0123456789" * 4 + "'",
    "DiscordBotTokenDetector": f"M{LETTERS[:23]}.{LETTERS[:6]}.{LETTERS[:27]}",
    "GitHubTokenDetector": TOKENS["github"],
    "GitLabTokenDetector": TOKENS["gitlab"],
    "IbmCloudIamDetector": "ibm-cloud_api_key: " + LETTERS[:44],
    "IbmCosHmacDetector": "cos_hmac_secret_access_key=" + "0123456789abcdef" * 3,
    "JwtTokenDetector": TOKENS["jwt"],
    "MailchimpDetector": TOKENS["mailchimp"],
    "NpmDetector": "//registry/:_authToken=npm_" + LETTERS[:36],
    "OpenAIDetector": TOKENS["openai"],
    "PrivateKeyDetector": "-----BEGIN RSA PRIVATE KEY-----",
    "PypiTokenDetector": TOKENS["pypi"],
    "SendGridDetector": TOKENS["sendgrid"],
    "SlackDetector": TOKENS["slack"],
    "SoftlayerDetector": "softlayer_api_key = '" + "abcdef0123456789" * 4 + "'",
    "SquareOAuthDetector": TOKENS["square"],
    "StripeDetector": TOKENS["stripe"],
    "TelegramBotTokenDetector": TOKENS["telegram"],
    "TwilioKeyDetector": TOKENS["twilio"],
}
"""What each detector of detect-secrets finds; it says so itself below."""


def detectors() -> dict[str, RegexBasedDetector]:
    """Return the detectors of detect-secrets that go by a pattern; addresses are no secrets."""
    found: dict[str, RegexBasedDetector] = {}
    for module in pkgutil.iter_modules(detect_secrets.plugins.__path__, "detect_secrets.plugins."):
        for name, kind in vars(importlib.import_module(module.name)).items():
            is_detector = inspect.isclass(kind) and issubclass(kind, RegexBasedDetector)
            if is_detector and not inspect.isabstract(kind) and name != "IPPublicDetector":
                found[name] = kind()
    return found


def test_every_detector_of_detect_secrets_has_a_sample() -> None:
    assert detectors().keys() == SAMPLES.keys()


@pytest.mark.promise("c49")
@pytest.mark.parametrize("name", SAMPLES)
def test_what_detect_secrets_finds_is_taken_out(name: str) -> None:
    found = detectors()[name].analyze_string(SAMPLES[name])
    secrets = [secret for secret in found if secret]
    assert secrets
    text = redact(SAMPLES[name])
    assert MARK in text
    assert not [secret for secret in secrets if secret in text]
