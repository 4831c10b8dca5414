"""NetworkPolicies, read as a cluster's network plug-in would: who may open a connection to whom."""

from ipaddress import ip_address, ip_network

import pytest

POLICY = {
    "enabled": True,
    "objectStore": {"cidrs": ["10.20.0.0/16"], "ports": [8333]},
}


@pytest.fixture(scope="module")
def objects(render):
    return render("guide.yaml", networkPolicy=POLICY)


@pytest.fixture(scope="module")
def may(objects):
    """`may(pod, to)`: whether a component's pod may connect to `(component or address, port)`."""
    labels = {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: each["spec"]["template"]["metadata"]["labels"]
        for each in objects
        if each["kind"] == "Deployment"
    }
    policies = [each["spec"] for each in objects if each["kind"] == "NetworkPolicy"]

    def selected(own):
        return [policy for policy in policies if policy["podSelector"].get("matchLabels", {}).items() <= own.items()]

    def peer_fits(peer, other):
        if "ipBlock" in peer:
            return other not in labels and ip_address(other) in ip_network(peer["ipBlock"]["cidr"])
        if "namespaceSelector" in peer:
            return False
        return other in labels and peer["podSelector"]["matchLabels"].items() <= labels[other].items()

    def allows(rules, key, other, port):
        return any(
            (not rule.get(key) or any(peer_fits(peer, other) for peer in rule[key]))
            and (not rule.get("ports") or any(each["port"] == port for each in rule["ports"]))
            for rule in rules
        )

    def answer(source, target, port):
        out = source not in labels or any(
            allows(policy["egress"], "to", target, port) for policy in selected(labels[source])
        )
        into = target not in labels or any(
            allows(policy["ingress"], "from", source, port) for policy in selected(labels[target])
        )
        return out and into

    return answer


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        ("10.9.9.9", "gateway", 8080),
        ("gateway", "worker", 8080),
        ("gateway", "config", 8080),
        ("worker", "config", 8080),
        ("worker", "10.20.3.4", 8333),
        ("worker", "169.254.20.10", 53),
    ],
)
def test_what_the_parts_need_of_each_other_is_open(may, source, target, port):
    assert may(source, target, port)


@pytest.mark.parametrize(
    ("source", "target", "port"),
    [
        ("10.9.9.9", "worker", 8080),
        ("10.9.9.9", "config", 8080),
        ("config", "worker", 8080),
        ("worker", "gateway", 8080),
        ("worker", "10.20.3.4", 443),
        ("worker", "203.0.113.9", 443),
        ("worker", "169.254.169.254", 80),
        ("gateway", "203.0.113.9", 443),
        ("gateway", "10.20.3.4", 8333),
        ("config", "203.0.113.9", 443),
    ],
)
def test_everything_else_is_shut(may, source, target, port):
    assert not may(source, target, port)


def test_metadata_server_and_sts_are_opened_by_name(render):
    objects = render("guide.yaml", networkPolicy={**POLICY, "metadataServer": True, "sts": {"cidrs": ["10.30.0.0/24"]}})
    (worker,) = [
        each["spec"]["egress"]
        for each in objects
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"].endswith("-worker")
    ]
    blocks = [peer["ipBlock"]["cidr"] for rule in worker for peer in rule["to"] if "ipBlock" in peer]

    assert {"169.254.169.254/32", "10.30.0.0/24"} <= set(blocks)
