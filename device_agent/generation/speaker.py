"""Answers with the person's plugin, or as the frozen backbone: all parts put together."""

import copy
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Self

from device_agent.closing import Closing
from device_agent.cloud.link import Link
from device_agent.cloud.session import RemoteSession
from device_agent.cloud.wire import choose_encoding, wire_of
from device_agent.data.chat_template import Message, render
from device_agent.data.pairs import opened, source_of
from device_agent.data.tokenizer import Tokenizer
from device_agent.errors import DeviceError
from device_agent.generation.drafting import Drafting, Tally
from device_agent.generation.gating import gate_of, goes_through
from device_agent.generation.generate import OnChoice, Piece, generate, read_ahead
from device_agent.generation.made_with import MadeWith
from device_agent.generation.posterior import EVIDENCE, is_foreign, log_likelihood
from device_agent.generation.sampling import Sampling
from device_agent.memory.mixture import GatedMemory
from device_agent.plugins import PluginVersion
from device_agent.runtime.head import Head
from device_agent.runtime.kits import Progress
from device_agent.runtime.plugin_kinds import Plugin, plugin_of
from device_agent.settings import OFF
from protocol.errors import ContextExceeded
from protocol.messages import States


class EmptyPrompt(DeviceError):
    """There is no token to begin with."""

    hint = "Write at least one word."

    def __init__(self) -> None:
        super().__init__("the prompt is empty")


class Speaker(Closing):
    """A session with the backbone that answers prompt after prompt. A context manager.

    With a personal prefix the frozen backbone, when it is asked beside the plugin, has a session of
    its own, which is told nothing personal.

    Args:
        link: The cloud and the home folder.
        version: The plugin that speaks; None for the frozen backbone alone.
        on_progress: Told of kit files that have to be fetched first.
        lender: Another speaker, whose head and tokenizer are shared when they are the same.

    Raises:
        WrongBackbone: The plugin was trained on another backbone.
    """

    def __init__(
        self,
        link: Link,
        version: PluginVersion | None,
        on_progress: Progress | None = None,
        lender: "Speaker | None" = None,
    ) -> None:
        self.facts = link.facts()
        if version is not None:
            version.require(self.facts.fingerprint)
        kit = link.kit(version.kit_id if version is not None else None, on_progress)
        threads = link.settings.threads
        self._kit_id = kit.manifest.id
        lends = lender is not None and lender._kit_id == self._kit_id
        self._head: Head = lender._head if lender and lends else Head(kit, threads)
        if version is not None:
            # Here, and not when it first speaks: head and tokenizer take as much again while they are loaded.
            # So what the larger one gives back is there for the other.
            self._head.prepare()
        self.tokenizer: Tokenizer = lender.tokenizer if lender and lends else link.tokenizer()
        # What was found not to help rests: then no taps have to travel either.
        corrects = version is not None and version.speaks in ("plugin", "whole")
        self._plugin = plugin_of(kit, version.weights(), threads) if version and corrects else None
        prefixed = version is not None and link.prefix > 0
        self._prefix: list[int] = version.prefix.tolist() if version and prefixed else []
        remembered = version if link.settings.memory == "on" else None
        self._memory = None if remembered is None else _memory_of(remembered)
        # Who lets no personal text go in front of a prompt lets none go as a guess either.
        self._guessable = self._memory.memory.tokens if self._memory and prefixed else None
        encoding = choose_encoding(link, kit) if version is None else version.encoding
        self._made_with = MadeWith(
            self.facts.fingerprint,
            None if version is None else version.version,
            self._plugin is not None,
            len(self._prefix),
            self._memory is not None,
        )
        self._cloud = link.cloud
        resident = self._plugin is not None and self._plugin.sequential
        # Who keeps something of every token has to be given every token's states.
        personal = (self._plugin is not None or self._memory is not None) and not resident
        self._gate = gate_of(link, version, kit) if version is not None and personal else None
        self._gate_name = f"{link.settings.gate_by}:{link.settings.gate}" if self._gate else ""
        # Who computes the last blocks needs what they read, and nothing that is made of it.
        final = self._memory is not None or not resident
        reads = self._plugin is not None
        self._wants, self._basis = wire_of(link, kit, encoding, taps=reads, final=final)
        self._bare_wants = wire_of(link, kit, encoding, taps=False).wants
        self._session = self._opened()
        self._bare: RemoteSession | None = None
        self._draft_anew(link)

    def beside(self, link: Link) -> Self:
        """Another one with the same parts, which are held once, and sessions of its own over ``link``."""
        other = copy.copy(self)
        other._cloud = link.cloud
        other._plugin = None if self._plugin is None else self._plugin.beside()
        other._session = other._opened()
        other._bare = None
        other._draft_anew(link)
        return other

    def made_with(self, base: bool = False, gated: bool = False) -> MadeWith:
        """What answers are made with; ``base`` as in ``answer``, ``gated`` as ``gates`` says."""
        if base:
            return MadeWith(self.facts.fingerprint)
        return replace(self._made_with, gate=self._gate_name) if gated else self._made_with

    def gates(self, sampling: Sampling, *, base: bool = False, watched: bool = False) -> bool:
        """Whether the cloud says by itself what does not need the device; ``watched``: choices are looked at."""
        return self._gate is not None and not base and not watched and goes_through(sampling)

    @property
    def drafts(self) -> Tally:
        """Tokens drafted, accepted, and said by the cloud alone, so far."""
        return self._drafting.tally + self._base_drafting.tally + self._gated.tally

    @property
    def room(self) -> int:
        """Most tokens of a prompt and its answer."""
        return self._session.limit - len(self._prefix)

    def close(self) -> None:
        """Let the cloud forget what was opened, if it can be told."""
        self._session.close()
        if self._bare is not None:
            self._bare.close()

    def ask(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation up to where the assistant begins to answer, or of all of a source."""
        if self.facts.encodes:
            return self.read(source_of(messages))
        text = render(self.facts, messages, answer_next=True)
        # The template has written the special tokens already.
        ids: list[int] = self.tokenizer.encode(text, special=False).tolist()
        return ids

    def read(self, text: str) -> list[int]:
        """Ids of a plain text to be continued; never empty.

        Raises:
            EmptyPrompt: There is no token to begin with.
        """
        ids: list[int] = self.tokenizer.encode(text).tolist()
        if not ids:
            raise EmptyPrompt()
        return ids

    def fit(self, messages: Sequence[Message], answer: int) -> list[int]:
        """Like ``ask``, with the oldest turns left out as far as ``answer`` tokens need room.

        Raises:
            ContextExceeded: The last turn alone is too long.
        """
        kept = list(messages)
        first = 1 if kept and kept[0]["role"] == "system" else 0
        room = self.room
        while len(ids := self.ask(kept)) + answer > room:
            if len(kept) < first + 3:
                if len(ids) < room:
                    break
                raise ContextExceeded(limit=room, asked=len(ids))
            del kept[first : first + 2]
        return ids

    def answer(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        limit: int,
        *,
        stop_strings: Sequence[str] = (),
        base: bool = False,
        text: bool = False,
        reuse: bool = False,
        on_choice: OnChoice | None = None,
    ) -> Iterator[Piece]:
        """Continue a prompt, which the personal prefix precedes when the plugin speaks.

        Args:
            prompt: Ids, one at least; of a source, for a backbone with an encoder.
            sampling: How tokens are drawn.
            limit: Most tokens to generate.
            stop_strings: End the answer, and are not shown.
            base: Whether the frozen backbone speaks although there is a plugin.
            text: Whether the prompt is no conversation but a text: one that the frozen backbone foresees
                better than what is personal here is somebody else's, and the backbone continues it.
            reuse: Whether the part of the prompt that the session has read already is kept. It is
                faster, and equal up to rounding only.
            on_choice: Told of each token before its piece comes.
        """
        encodes = self.facts.encodes
        doubted = text and not base and self._personal and len(prompt) > 1 and not encodes
        base = base or (doubted and self._is_foreign(prompt))
        prefix = [] if base else self._prefix
        session = self._frozen() if base else self._session
        whole = opened(prompt, self.facts) if encodes else [*prefix, *prompt]
        shared = _shared(session.tokens, whole) if reuse or doubted else len(prefix)
        if not base and self._plugin is not None:
            shared = self._plugin.follows(shared)
        if not encodes:
            session.crop(shared)
        elif session.source == len(prompt) <= shared:
            session.crop(shared)
        else:
            session.begin(len(prompt))
            shared = 0
        stops: Collection[int] = frozenset(self.facts.stop_tokens)
        gated = self.gates(sampling, base=base, watched=on_choice is not None)
        own = self._gated if gated else self._drafting
        return generate(
            session,
            None if base else self._plugin,
            self._head,
            self.tokenizer,
            whole[shared:],
            sampling,
            stops,
            stop_strings,
            limit,
            memory=None if base else self._memory,
            # The prefix is how the person writes, which a penalty must not drive out; and a target
            # may say what its source says.
            uncounted=len(whole) if encodes else len(prefix),
            drafting=self._base_drafting if base else own,
            gated=gated,
            known=None if base else self._guessable,
            on_choice=on_choice,
        )

    def _draft_anew(self, link: Link) -> None:
        """Know nothing yet of the way to the cloud, nor of how often its drafts are accepted."""
        # Where the cloud computes no further than the taps, there is nothing that it could draft by.
        own = OFF if self._wants.depth is not None else link.settings.drafts
        self._drafting = Drafting(own)
        self._base_drafting = Drafting(link.settings.drafts)
        self._gated = Drafting(OFF)

    def _opened(self) -> RemoteSession:
        """A session for what is personal."""
        return RemoteSession(self._cloud, self._wants, self._prefix, self._basis, self._gate)

    def _frozen(self) -> RemoteSession:
        """The session in which the backbone speaks by itself."""
        if not self._prefix and self._wants.final:
            return self._session
        if self._bare is None:
            self._bare = RemoteSession(self._cloud, self._bare_wants, basis=self._basis)
        return self._bare

    @property
    def _personal(self) -> bool:
        """Whether anything makes a difference to the frozen backbone."""
        return bool(self._prefix) or self._plugin is not None or self._memory is not None

    def _is_foreign(self, prompt: Sequence[int]) -> bool:
        """Whether the frozen backbone alone has foreseen a text clearly better than what is personal has.

        Both sessions have read all but the last token of it then.
        """
        first = max(1, len(prompt) - EVIDENCE)
        ids, plugin = [*self._prefix, *prompt], self._plugin
        states = self._read(self._session, ids, len(self._prefix) + first, plugin)
        ours = log_likelihood(states, prompt[first:], self._head, self._plugin, self._memory)
        if self._frozen() is not self._session:
            states = self._read(self._frozen(), prompt, first)
        return is_foreign(ours, log_likelihood(states, prompt[first:], self._head))

    @staticmethod
    def _read(
        session: RemoteSession, ids: Sequence[int], first: int, plugin: Plugin | None = None
    ) -> States:
        """Bring a session to all of ``ids`` but the last; gives the states behind which ``ids[first:]`` came.

        With others before them where the plugin has to be given those too.
        """
        kept = min(_shared(session.tokens, ids), first - 1)
        session.crop(kept if plugin is None else plugin.follows(kept))
        wanted = len(ids) - first
        if plugin is not None and plugin.sequential:
            read_ahead(session, plugin, ids[session.position : first])
            wanted = len(ids) - 1 - session.position
        return session.step(ids[session.position : -1], wanted)


def _memory_of(version: PluginVersion) -> GatedMemory | None:
    """What the version remembers, where that helps it."""
    gates = {"memory": version.gates.alone, "whole": version.gates.plugin}
    gate = gates.get(version.speaks)
    memory = None if gate is None else version.memory()
    return None if gate is None or memory is None else GatedMemory(memory, gate)


def _shared(kept: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens of ``kept`` begin ``prompt``; one of the prompt is always left to send."""
    longest = min(len(kept), len(prompt) - 1)
    return next((i for i in range(longest) if kept[i] != prompt[i]), longest)
