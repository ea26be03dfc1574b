"""Make settings out of configuration files, the environment and the command line.

Precedence, highest first, key by key: command line (`overrides`), files, environment (`ESMD_REDIS_URL`, `AWS_REGION`,
`AWS_DEFAULT_REGION`), defaults. Of several files each section may stand in one (or be the same in all); functions and
mappings add up. A CloudFormation or SAM template is a file of mappings (`config.cloudformation`).
Every problem of all files is reported at once. Reading secrets is left to `config.secrets`, when they are used.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from config.cloudformation import TemplateMapping, is_template, read_template
from config.functions import FUNCTION_NAME, over_reserved, parse_function
from config.sections import FILE_KEYS, SECTIONS, build_sections, is_loopback, overlay, with_empty_servers
from config.settings import AwsSettings, ConfiguredMapping, Settings
from config.yaml_document import Document, read_document, without_tags
from model.mapping_rules import canonical_document, check_together, parse_mapping
from model.problem import InvalidConfigurationError, Problem, child_path
from model.rules.checking import INVALID, Checker
from model.rules.wording import OwnVoice, kind_of, wrong_kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from invocation.settings import FunctionSettings
    from model.function_config import FunctionPart

_KAFKA_TIMEOUT_S = 840.0  # rule 4 of spec section 1.3


def load(
    paths: Sequence[Path],
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
    now: datetime | None = None,
) -> Settings:
    """Return the settings; `overrides` has the form of a file: `{"redis": {"url": …}, "listen": …}`.

    Raises `InvalidConfigurationError` with every problem, in the order of files and lines.
    """
    loading = _Loading(now or datetime.now(UTC))
    documents = [document for path in paths if (document := loading.read(path)) is not None]
    sections = loading.sections(_from_environment(os.environ if environ is None else environ))
    from_files: dict[str, Any] = {}
    for document in documents:
        if not is_template(document.value):
            loading.merge(from_files, document)
    sections = overlay(sections, from_files)
    sections = overlay(sections, loading.sections(Document("command line", dict(overrides or {}))))
    aws = AwsSettings(**sections.get("aws", {}))
    for document in documents:
        if is_template(document.value):
            loading.template(document, aws)
        else:
            loading.functions(document, aws)
            loading.mappings(document)
    settings = Settings(
        functions={name: function for name, (function, _) in loading.found_functions.items()},
        function_parts={name: parts for name, (_, parts) in loading.found_functions.items()},
        event_source_mappings=tuple(loading.found_mappings),
        **build_sections(sections),
    )
    loading.check_across(settings)
    if loading.problems:
        order = {str(path): i for i, path in enumerate(paths)}
        raise InvalidConfigurationError(sorted(loading.problems, key=lambda p: (order.get(p.file, -1), p.line)))
    return settings


@dataclass(slots=True)
class _Loading:
    """What has been found so far, right or wrong."""

    now: datetime
    problems: list[Problem] = field(default_factory=list)
    found_functions: dict[str, tuple[FunctionSettings, Mapping[FunctionPart, bytes]]] = field(default_factory=dict)
    function_documents: dict[str, Document] = field(default_factory=dict)
    found_mappings: list[ConfiguredMapping] = field(default_factory=list)
    named_functions: list[tuple[str, bool, Document, str]] = field(default_factory=list)  # of Kafka?, where named
    places: list[tuple[Document, str]] = field(default_factory=list)  # of each found mapping
    given_timeouts: set[str] = field(default_factory=set)  # functions whose timeout was written down
    function_names: set[str] = field(default_factory=set)  # also of those with problems
    section_documents: dict[str, Document] = field(default_factory=dict)

    def read(self, path: Path) -> Document | None:
        """Read a file; None if nothing can be said about its content."""
        try:
            document = read_document(path)
        except InvalidConfigurationError as exc:
            self.problems.extend(exc.problems)
            return None
        self.problems.extend(document.problems)
        if document.value is None:
            return None
        if not isinstance(document.value, dict):
            self.problems.append(Problem("", wrong_kind("a mapping", document.value), document.file, 1))
            return None
        if not is_template(document.value):
            unknown = [(path, f"has a tag that is not known here: {tag}") for path, tag in document.tags]
            self.note(document, [Problem(path, rule) for path, rule in unknown])
            return replace(document, value=without_tags(document.value))
        return document

    def note(self, document: Document, problems: Sequence[Problem]) -> None:
        """Take up problems that stand in a document."""
        self.problems.extend(document.locate(problem) for problem in problems)

    def sections(self, document: Document) -> dict[str, Any]:
        """Check the sections that stand for the whole node."""
        given = document.value
        if not isinstance(given, dict):
            return {}
        checker = Checker(OwnVoice())
        anchors = {key for key in given if key.startswith("x-")}  # a place for YAML anchors
        checker.unknown_keys({key: None for key in given if key not in anchors}, dict.fromkeys(FILE_KEYS), ())
        checked: dict[str, Any] = {}
        for name, section in SECTIONS.items():
            value = with_empty_servers(given.get(name)) if name == "embedded" else given.get(name)
            if value is None:
                continue
            before = len(checker.problems)
            found = checker.check(section.shape, value, (name,))
            if name == "auth" and found == {} and len(checker.problems) == before:
                checker.report(("auth",), "needs tokens, read_only_tokens or access_keys")
            if found is not INVALID and len(checker.problems) == before:
                checked[name] = found
                self.section_documents[name] = document
        self.note(document, checker.problems)
        return checked

    def merge(self, merged: dict[str, Any], document: Document) -> None:
        """Add the sections of one more file."""
        before = dict(self.section_documents)
        for name, value in self.sections(document).items():
            if name not in merged:
                merged[name] = value
            elif merged[name] != value:
                rule = f"is set differently in {before[name].file}; a section may stand in one file only"
                self.note(document, [Problem(name, rule)])

    def functions(self, document: Document, aws: AwsSettings) -> None:
        """Add the functions a file lists."""
        listed = _entries(document, "functions")
        if listed is None:
            return
        checker = Checker(OwnVoice())
        if not isinstance(listed, dict):
            checker.report(("functions",), wrong_kind("a mapping of functions by name", listed))
            listed = {}
        for name, value in listed.items():
            at = ("functions", name)
            self.function_names.add(name)
            if checker.check(FUNCTION_NAME, name, at) is INVALID:
                continue
            function = parse_function(name, value, checker, at, aws)
            if function is None:
                continue
            if self.found_functions.setdefault(name, function) != function:
                checker.report(at, "is listed differently in another file")
            self.function_documents.setdefault(name, document)
            if "timeout" in value:
                self.given_timeouts.add(name)
        self.note(document, checker.problems)

    def mappings(self, document: Document) -> None:
        """Add the mappings a file lists."""
        listed = _entries(document, "event_source_mappings")
        if listed is None:
            return
        if not isinstance(listed, list):
            rule = f"must be a list of mappings, not {kind_of(listed)}"
            self.note(document, [Problem("event_source_mappings", rule)])
            return
        for i, value in enumerate(listed):
            self._mapping(document, child_path("event_source_mappings", i), value)

    def template(self, document: Document, aws: AwsSettings) -> None:
        """Add the mappings of a CloudFormation or SAM template."""
        found, problems = read_template(document.value, aws)
        self.note(document, problems)
        for entry in found:
            self._mapping(document, entry.path, entry)

    def _mapping(self, document: Document, path: str, value: object) -> None:
        given: Any = value.document if isinstance(value, TemplateMapping) else value
        if isinstance(given, dict) and isinstance(name := given.get("FunctionName"), str):
            # Also of a mapping with problems of its own, so that all are told at once.
            self.named_functions.append((name, "Topics" in given, document, child_path(path, "FunctionName")))
        try:
            mapping = parse_mapping(given, path=path, now=self.now)
            canonical_document(given)
        except InvalidConfigurationError as exc:
            self.note(document, exc.problems)
            return
        line = document.locate(Problem(path, "")).line
        self.found_mappings.append(ConfiguredMapping(given, mapping, document.file, line))
        self.places.append((document, path))

    def check_across(self, settings: Settings) -> None:
        """Check what no section can tell by itself."""
        if settings.auth is None and not is_loopback(settings.listen):
            where = self.section_documents["listen"]
            rule = 'other than loopback needs `auth: {tokens: ["${env:ESMD_TOKEN}"]}`; or listen on 127.0.0.1'
            self.note(where, [Problem("listen", rule)])
        tokens = [f"#{i}" for i in range(len(self.places))]
        mappings = [found.mapping for found in self.found_mappings]
        for problem in check_together(mappings, paths=tokens):
            token = problem.path.partition(".")[0]
            document, path = self.places[int(token[1:])]
            self.note(document, [Problem(path + problem.path.removeprefix(token), problem.rule)])
        for name, rule in over_reserved(settings.function_parts, settings.invoke.account_concurrency):
            self.note(self.function_documents[name], [Problem(f"functions.{name}.concurrency", rule)])
        for name, kafka, document, path in self.named_functions:
            broken = self._function_rule(settings, name, kafka=kafka)
            if broken is not None:
                self.note(document, [Problem(path, broken)])

    def _function_rule(self, settings: Settings, name: str, *, kafka: bool) -> str | None:
        target = settings.target_for(name)
        if target is None:
            if any(name == known or name.startswith(known + ":") for known in self.function_names):
                return None  # listed, with a problem of its own
            return (
                f"Function does not exist: {name}. List it under functions, set invoke.endpoint for functions that are "
                "not listed, or give a full function ARN"
            )
        if kafka and target.name in self.given_timeouts and target.timeout_s > _KAFKA_TIMEOUT_S:
            allowed = f"for Kafka it must be {_KAFKA_TIMEOUT_S:g} s or less"
            return f"the timeout of {target.name} is {target.timeout_s:g} s; {allowed}"
        return None


def _entries(document: Document, key: str) -> object:
    return document.value.get(key) if isinstance(document.value, dict) else None


def _from_environment(environ: Mapping[str, str]) -> Document:
    found: dict[str, object] = {}
    if url := environ.get("ESMD_REDIS_URL"):
        found["redis"] = {"url": url}
    if region := environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"):
        found["aws"] = {"region": region}
    return Document("environment", found)
