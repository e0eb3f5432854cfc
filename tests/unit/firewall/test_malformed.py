"""Any section `firewall` is accepted, or refused with a message; no other exception is raised."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from components.firewall.rules.compile import compile_policies, restore_document
from components.firewall.rules.config import FirewallConfig, Policy, Rule
from components.firewall.rules.guard import guard_policies, required_flows
from components.shared.policy_values import PolicyError
from tests.unit.firewall.firewall_cases import LAB

# Valid words, nearly valid words, and arbitrary ones.
WORDS = [
    *("", " ", "a0", "all", "visitor", "operator", "few", "drop", "reject", "tcp", "icmp", "echo-request"),
    *("10.0.0.1", "10.0.0.1/33", "10.0.0.0/8", "fd00::/8", "::", "0.0.0.0/0", "/", "1/2/3", "fe80::1%eth0"),
    *("02:42:ac:10:06:42", "80", "80-", "-80", "80:90", "1-2-3", "²", "99999999999999999999", "eth+", "+"),
    *('"', "a\nb", "$(reboot)", "--help", "new", "port-unreachable", "ipv6", "host", "\0"),
]
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=6,
)


def keys(model: type[FirewallConfig] | type[Policy] | type[Rule]) -> list[str]:
    """The keys of a section as in the config file."""
    return [field.alias or name for name, field in model.model_fields.items()]


def broken(model: type[Policy] | type[Rule], valid: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A valid section with some keys replaced."""
    wrong = st.dictionaries(st.sampled_from([*keys(model), "unknown"]), ANYTHING, max_size=3)
    return wrong.map(lambda values: {**valid, **values})


RULES = broken(Rule, {"action": "drop"})
POLICIES = st.builds(
    lambda policy, rules: {"rules": rules, **policy},
    broken(Policy, {"hosts": ["a0"]}),
    st.lists(RULES, max_size=2),
)
SECTIONS = ANYTHING | st.fixed_dictionaries(
    {"policies": st.dictionaries(st.sampled_from(["p", "q", "P", ""]), POLICIES, max_size=2)},
    optional={
        "sets": st.dictionaries(st.sampled_from(["few", "a0", "-", ""]), st.lists(ANYTHING), max_size=1)
        | ANYTHING,
        "operator": ANYTHING,
        "undoSeconds": ANYTHING,
    },
)


@settings(max_examples=500, deadline=None)
@given(section=SECTIONS)
def test_any_section_is_accepted_or_refused(section: Any) -> None:  # noqa: ANN401
    try:
        by_host = guard_policies(FirewallConfig.model_validate(section), LAB, required_flows(LAB))
    except ValidationError as error:
        messages = [detail["msg"] for detail in error.errors()]
    except PolicyError as error:
        messages = error.problems
    else:
        messages = ["accepted"]
        for policies in by_host.values():
            compiled = compile_policies(policies)
            for chains in (compiled.ipv4, compiled.ipv6):
                document = restore_document(chains, compiled.policies)
                assert all(line[0] in "*:-C" for line in document.splitlines())
    assert messages
    assert all(messages)
