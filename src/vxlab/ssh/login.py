"""Logging in: with the agent's keys, key files, the host's own questions, a password.

A person is asked one question at a time, however many connections are opened at once.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

from vxlab.errors import RefusedError
from vxlab.ssh import identities
from vxlab.ssh.border import library
from vxlab.ssh.config import Settings

#: Asks a person for a secret; None: there is nobody to ask.
Ask = Callable[[str], str | None]

TRIES = 3

#: Held while a person is asked.
asking = threading.RLock()

_PATIENCE = 120.0  # seconds for an answer; sshd's LoginGraceTime


def printable(text: str) -> str:
    """A host's words without what would steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


class Login:
    """One login.

    Args:
        name: the node's, for messages.
        transport: encrypted, to a host whose key is known.
    """

    def __init__(self, name: str, settings: Settings, transport: Any, ask: Ask) -> None:
        self._name, self._settings, self._transport = name, settings, transport
        self._ask = ask
        self._tried: list[str] = []
        self._asked_in_vain = False
        self._failure: RefusedError | None = None
        self.password: str | None = None  # as far as one was typed that worked

    def run(self) -> None:
        """Log in.

        Raises:
            RefusedError: nothing that was tried is good enough; says all of it.
        """
        self._transport.auth_timeout = _PATIENCE
        agent = identities.Agent(self._settings)
        try:
            allowed = self._with_keys(agent)
        finally:
            agent.close()
        while not self._transport.is_authenticated():
            allowed = self._with_answers(self._methods() if allowed is None else allowed)

    def _refused(self, allowed: Sequence[str] = ()) -> RefusedError:
        lines = self._tried or ["there was no key to try"]
        if allowed:
            lines = [*lines, f"the host offers {', '.join(allowed)}"]
        if self._asked_in_vain:
            hint = "there is nobody to ask for a password: run it in a terminal, or set up a key"
        elif not self._transport.is_active():
            hint = "the host hung up: name one key as IdentityFile, with IdentitiesOnly yes"
        else:
            hint = f"try `ssh {self._settings.login}`, which reads the same configuration"
        return RefusedError(
            f"{self._settings.login} was refused the login to {self._settings.place}",
            where=self._name,
            detail="\n".join(lines),
            hint=hint,
        )

    def _attempt(
        self, what: str, method: Callable[..., list[str]], *secret: Any, **options: Any
    ) -> list[str] | None:
        """Try one thing: None if it was refused, else what the host wants besides (or nothing)."""
        paramiko = library()
        try:
            return method(self._settings.user, *secret, **options)
        except paramiko.BadAuthenticationType as error:
            self._tried.append(f"{what}: not allowed")
            return list(error.allowed_types)
        except paramiko.AuthenticationException:
            self._tried.append(f"{what}: refused")
        if not self._transport.is_active():
            raise self._refused()
        return None

    # --- keys -----------------------------------------------------------------------------------

    def _with_keys(self, agent: identities.Agent) -> list[str] | None:
        """Try all keys; the methods that are left, None if the host did not tell."""
        for what, key, identity in identities.candidates(self._settings, agent):
            if identity is not None:
                key = self._load(identity)
            if key is None:
                continue
            allowed = self._attempt(what, self._transport.auth_publickey, key)
            if allowed is not None:
                return allowed
        return None

    def _load(self, identity: identities.Identity) -> Any:
        path = identity.path
        if not identity.locked:
            try:
                return identities.load(identity)
            except ValueError as error:
                self._tried.append(f"{path}: {error}")
                return None
        with asking:
            key = identities.unlocked(path)
            return key if key is not None else self._unlock(identity)

    def _unlock(self, identity: identities.Identity) -> Any:
        question = f"passphrase of {identity.path} for {self._settings.login}"
        for _ in range(TRIES):
            answer = self._ask(question)
            if not answer:
                self._tried.append(f"{identity.path}: no passphrase")
                self._asked_in_vain = self._asked_in_vain or answer is None
                return None
            try:
                key = identities.load(identity, answer)
            except ValueError:
                continue
            identities.remember(identity.path, key)
            return key
        self._tried.append(f"{identity.path}: wrong passphrase")
        return None

    # --- answers --------------------------------------------------------------------------------

    def _methods(self) -> list[str]:
        """What the host accepts; asking is a login without anything (RFC 4252, 5.2)."""
        paramiko = library()
        try:
            self._transport.auth_none(self._settings.user)
        except paramiko.BadAuthenticationType as error:
            return list(error.allowed_types)
        except paramiko.AuthenticationException:
            raise self._refused() from None
        return []

    def _with_answers(self, allowed: list[str]) -> list[str]:
        """Have a person answer; what the host wants besides."""
        if self._transport.is_authenticated():
            return []
        ways = {"keyboard-interactive": self._interactive, "password": self._by_password}
        for way, method in ways.items():
            if way in allowed:
                more = method()
                if more is not None:
                    return more
        raise self._refused(allowed)

    def _by_password(self) -> list[str] | None:
        for _ in range(TRIES):
            with asking:
                answer = self._ask(f"password of {self._settings.login}")
            if answer is None:
                self._asked_in_vain = True
                return None
            more = self._attempt("password", self._transport.auth_password, answer, fallback=False)
            if more is not None:
                self.password = answer
                return more
        return None

    def _interactive(self) -> list[str] | None:
        """The host's own questions (RFC 4256): a password, a one-time code, ..."""
        for _ in range(TRIES):
            heard: list[str] = []

            def answer(
                title: str, text: str, prompts: list[tuple[str, bool]], heard: list[str] = heard
            ) -> list[str]:
                return [self._answer(prompt, shown, heard) for prompt, shown in prompts]

            more = self._attempt("keyboard-interactive", self._transport.auth_interactive, answer)
            if more is not None:
                self.password = heard[0] if heard else None
                return more
            if self._asked_in_vain:
                return None
        return None

    def _answer(self, prompt: str, shown: bool, heard: list[str]) -> str:
        """paramiko's own thread calls this: nothing may be raised here."""
        with asking:
            said = self._ask(f"{self._settings.login}: {printable(prompt) or 'answer'}")
        if said is None:
            self._asked_in_vain = True
            return ""
        if not shown and re.search("password", prompt, re.IGNORECASE):
            heard.append(said)
        return said
