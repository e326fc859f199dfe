"""Texts of the traffic, on top of the grammars: questions of a domain, conversations, documents, exam items."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.simulation.grammar import Draw, Grammar, traffic_grammar

LANGUAGES = ("zh", "ru", "es", "de", "fr", "pt", "ja")
_DOMAINS_RULE = "domain"
_DETAILED = 0.5


class Fillers(dict[str, str]):
    """Values for slots that are made anew each time they are read."""

    def __init__(self, makers: Mapping[str, Callable[[], str]]) -> None:
        super().__init__()
        self._makers = makers

    def __missing__(self, name: str) -> str:
        return self._makers[name]()


class Wording:
    """All texts that one account writes, drawn from its own source of randomness."""

    def __init__(self, draw: Draw, grammar: Grammar | None = None) -> None:
        self.draw = draw
        self.grammar = grammar or traffic_grammar()

    def of(self, rule: str) -> str:
        """One expansion of a rule without slots."""
        return self.grammar.expand(rule, self.draw)

    def domains(self, count: int) -> tuple[str, ...]:
        """Some everyday domains."""
        return tuple(self.of(_DOMAINS_RULE) for _ in range(count))

    def about(self, domain: str) -> Fillers:
        """The slots of the everyday forms, bound to one domain."""
        return Fillers(
            {
                "GOAL": lambda: self.of(f"{domain}_goal"),
                "SNAG": lambda: self.of(f"{domain}_snag"),
                "THING": lambda: self.of(f"{domain}_thing"),
            }
        )

    def say(self, rule: str, domain: str) -> str:
        """A form such as `ask` or `more`, about a domain, or in another language where `domain` names one."""
        if domain in LANGUAGES:
            text = self.of(f"{domain}_{rule}" if rule in ("ask", "chat") else f"{domain}_more")
            return f"{text} {self.circumstances(domain)}" if self.draw() < _DETAILED else text
        return self.grammar.expand(rule, self.draw, self.about(domain))

    def circumstances(self, language: str) -> str:
        """One or more details in a language, such as a place, a budget or a date."""
        return ", ".join([self.of(f"{language}_detail") for _ in range(1 + int(self.draw() * 2))])

    def answer(self, domain: str) -> str:
        """An answer that somebody has graded."""
        return self.grammar.expand("answer", self.draw, self.about(domain))

    def exam_item(self, kind: str) -> str:
        """A test item: `problem`, `choice` or `code_task`."""
        if kind != "choice":
            return self.of(kind)
        return self.grammar.expand(
            kind, self.draw, Fillers({f"CHOICE{n}": lambda: self.of("choice_a") for n in range(1, 5)})
        )

    def document(self, rule: str, parts: int) -> str:
        """A document of some parts, each an expansion of `rule`."""
        return self.of(rule) if parts == 1 else "\n\n".join([self.of(rule) for _ in range(parts)])

    def shown(self, item: Callable[[], str], answer: Callable[[], str], most: int) -> str:
        """Worked examples to put before a prompt: one to `most` items, each with its answer."""
        count = 1 + int(self.draw() * most)
        return "".join([f"{item()}\n{answer()}\n\n" for _ in range(count)])
