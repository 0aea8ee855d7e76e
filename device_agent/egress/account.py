"""The way out: whatever is about to leave is held against the policy and entered into the ledger first."""

from device_agent.cloud.traffic import Kind, Outgoing, Traffic
from device_agent.egress.ledger import Entry, Ledger
from device_agent.egress.policy import CapReached, Policy, PolicyFile

LATER: frozenset[Kind] = frozenset({"answer"})
"""Kinds that come one a token, and are entered up to a second after they have left, unless a cap holds."""


class Egress:
    """One connection's account.

    What a process has sent is in the ledger when the process dies, but for a second's tokens of an answer.
    """

    def __init__(self, policy: PolicyFile, ledger: Ledger) -> None:
        self._policy, self._ledger = policy, ledger
        self.up = self.down = 0
        """Bytes of bodies so far."""

    def leaving(self, out: Outgoing) -> None:
        """Let a request leave.

        Raises:
            BadPolicy, PolicyForbids, CapReached: It stays here.
        """
        policy = self._policy.now()
        policy.require(out)
        entry = Entry(out.host, out.kind, out.head + out.body, 0, out.tokens, 1)
        caps = policy.bytes_per_day
        if out.kind in LATER and not caps:
            self._ledger.note(entry)
            return
        reached = self._ledger.enter_within(entry, caps)
        if reached is not None:
            name, spent = reached
            raise CapReached(name, caps[name], spent, entry.up)

    def came(self, traffic: Traffic) -> None:
        """Note what an exchange has brought, and take back what has not left."""
        out = traffic.out
        self.down += traffic.down
        if traffic.left:
            self.up += out.body
            self._ledger.note(Entry(out.host, out.kind, down=traffic.head + traffic.down))
        else:
            size = -(out.head + out.body)
            self._ledger.note(Entry(out.host, out.kind, size, tokens=-out.tokens, exchanges=-1))

    @property
    def policy(self) -> Policy:
        """What holds at this moment. Raises BadPolicy."""
        return self._policy.now()

    def flush(self) -> None:
        """Enter what is only noted yet."""
        self._ledger.flush()
