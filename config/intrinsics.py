"""Evaluate CloudFormation's intrinsic functions as far as a template tells without being deployed.

Knows parameters' defaults, pseudo parameters, mappings, conditions, and of resources the names and ARNs that follow
from the template. What cannot be known becomes a problem naming it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from config.yaml_document import Tagged
from model.problem import Problem, child_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from config.settings import AwsSettings


class UnresolvedError(Exception):
    """A value that only a deployment knows; the message says why."""


NO_VALUE = object()
"""What `AWS::NoValue` stands for: the property is absent."""

_VARIABLE = re.compile(r"\$\{([^!][^}]*)\}")
_MAX_DEPTH = 32
_MAX_STEPS = 100_000
_MAX_TEXT = 10_000
_BARE = ("Ref", "Condition")
_BUCKET = "AWS::S3::Bucket"
_ALIAS = "AWS::Lambda::Alias"
_SAM_FUNCTION = "AWS::Serverless::Function"

# By resource type: (property with the name, what Ref gives, ARN form, attributes that are the ARN, that are the name)
_KINDS: Mapping[str, tuple[str, str, str, tuple[str, ...], tuple[str, ...]]] = {
    "AWS::Lambda::Function": ("FunctionName", "{name}", "lambda:{region}:{account}:function:{name}", ("Arn",), ()),
    _SAM_FUNCTION: ("FunctionName", "{name}", "lambda:{region}:{account}:function:{name}", ("Arn",), ()),
    _ALIAS: ("Name", "{arn}", "lambda:{region}:{account}:function:{name}", ("AliasArn",), ()),
    "AWS::SQS::Queue": (
        "QueueName",
        "https://sqs.{region}.amazonaws.com/{account}/{name}",
        "sqs:{region}:{account}:{name}",
        ("Arn",),
        ("QueueName",),
    ),
    "AWS::SNS::Topic": ("TopicName", "{arn}", "sns:{region}:{account}:{name}", ("TopicArn",), ("TopicName",)),
    "AWS::Kinesis::Stream": ("Name", "{name}", "kinesis:{region}:{account}:stream/{name}", ("Arn",), ()),
    _BUCKET: ("BucketName", "{name}", "s3:::{name}", ("Arn",), ()),
}


class Intrinsics:
    """The template's facts. `resolve` is the way in."""

    def __init__(self, template: Mapping[str, Any], aws: AwsSettings) -> None:
        self._parameters = _table(template.get("Parameters"))
        self._mappings = _table(template.get("Mappings"))
        self._conditions = _table(template.get("Conditions"))
        self._resources = _table(template.get("Resources"))
        self._function_defaults = _table(_table(template.get("Globals")).get("Function"))
        self._aws = aws
        self._depth = 0
        self._steps = 0
        self._pseudo: dict[str, object] = {
            "AWS::Region": aws.region,
            "AWS::AccountId": aws.account_id,
            "AWS::Partition": aws.partition,
            "AWS::URLSuffix": "amazonaws.com.cn" if aws.partition == "aws-cn" else "amazonaws.com",
            "AWS::NoValue": NO_VALUE,
        }
        self._functions: dict[str, Callable[[Any], object]] = {
            "Ref": self._ref,
            "Condition": self._condition,
            "Fn::GetAtt": self._get_att,
            "Fn::Sub": self._sub,
            "Fn::Join": self._join,
            "Fn::Select": self._select,
            "Fn::Split": self._split,
            "Fn::FindInMap": self._find_in_map,
            "Fn::If": self._if,
            "Fn::Equals": self._equals,
            "Fn::Not": lambda given: not self._truth(self._arguments(given, 1)[0]),
            "Fn::And": lambda given: all(self._truth(item) for item in self._arguments(given, None)),
            "Fn::Or": lambda given: any(self._truth(item) for item in self._arguments(given, None)),
        }

    def resolve(self, value: object, path: str, problems: list[Problem]) -> object:
        """Return the value without intrinsics; what cannot be resolved becomes a problem and is left out."""
        call = intrinsic(value)
        if call is not None:
            try:
                return self._evaluate(*call)
            except UnresolvedError as exc:
                problems.append(Problem(path, str(exc)))
            return NO_VALUE
        if isinstance(value, dict):
            entries = {key: self.resolve(item, child_path(path, key), problems) for key, item in value.items()}
            return {key: item for key, item in entries.items() if item is not NO_VALUE}
        if isinstance(value, list):
            items = [self.resolve(item, child_path(path, i), problems) for i, item in enumerate(value)]
            return [item for item in items if item is not NO_VALUE]
        return value

    def name_of(self, logical_id: str) -> str:
        """Return the name of a function, queue, topic, stream or bucket; its logical id if the template gives none.

        That of an alias is FUNCTION:ALIAS.
        """
        resource = _table(self._resources.get(logical_id))
        kind = _KINDS.get(str(resource.get("Type")))
        properties = _table(resource.get("Properties"))
        if resource.get("Type") == _ALIAS:
            function, alias = (_as_text(self._value(properties.get(key)), key) for key in ("FunctionName", "Name"))
            return f"{function.rpartition(':')[2]}:{alias}"
        given = properties.get(kind[0]) if kind else None
        if given is not None:
            given = self._value(given)
        if given is None or given is NO_VALUE:
            fifo = self._value(properties.get("FifoQueue", properties.get("FifoTopic", False)))
            name = logical_id.lower() if resource.get("Type") == _BUCKET else logical_id  # names of buckets are
            return f"{name}.fifo" if fifo in (True, "true") else name
        return _as_text(given, logical_id)

    def alias_of(self, logical_id: str) -> str | None:
        """Return the alias that SAM publishes for one of its functions. Raises `UnresolvedError`."""
        resource = _table(self._resources.get(logical_id))
        given = _table(resource.get("Properties")).get(
            "AutoPublishAlias", self._function_defaults.get("AutoPublishAlias")
        )
        alias = self._value(given) if resource.get("Type") == _SAM_FUNCTION else None
        return alias if isinstance(alias, str) else None

    def _value(self, value: object) -> object:
        call = intrinsic(value)
        if call is not None:
            return self._evaluate(*call)
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if isinstance(value, dict):
            return {key: self._value(item) for key, item in value.items()}
        return value

    def _evaluate(self, function: str, argument: object) -> object:
        known = self._functions.get(function)
        if known is None:
            raise UnresolvedError(f"{function} cannot be resolved without a deployment; write the value here")
        self._steps += 1
        if self._depth > _MAX_DEPTH or self._steps > _MAX_STEPS:
            raise UnresolvedError(f"{function} refers to itself, or is too deep")
        self._depth += 1
        try:
            result = known(argument)
        except RecursionError:
            raise UnresolvedError(f"{function} refers to itself, or is too deep") from None
        finally:
            self._depth -= 1
        if isinstance(result, str) and len(result) > _MAX_TEXT:
            raise UnresolvedError(f"{function} makes more than {_MAX_TEXT} characters")
        return result

    def _ref(self, name: object) -> object:
        if not isinstance(name, str):
            raise UnresolvedError("Ref needs a name")
        if name in self._pseudo:
            return self._pseudo[name]
        if name in self._parameters:
            return self._parameter(name)
        if (published := self._published(name)) is not None:
            return published
        if name not in self._resources:
            raise UnresolvedError(f"Ref {name}: the template has no such parameter or resource")
        form = self._kind(name, f"Ref {name}")[1]
        return form.format(**self._facts(name))

    def _published(self, name: str) -> str | None:
        """Return the ARN of what SAM makes of a function with an alias, FUNCTION.Alias; None for any other name."""
        function, _, what = name.partition(".")
        alias = self.alias_of(function) if what == "Alias" else None
        return None if alias is None else f"{self._facts(function)['arn']}:{alias}"

    def _parameter(self, name: str) -> object:
        parameter = _table(self._parameters[name])
        if "Default" not in parameter:
            raise UnresolvedError(f"Ref {name}: the parameter has no Default; give it one")
        default = parameter["Default"]
        if str(parameter.get("Type", "")).startswith(("CommaDelimitedList", "List<")) and isinstance(default, str):
            return [item.strip() for item in default.split(",")]
        return default

    def _get_att(self, argument: object) -> object:
        parts = argument.split(".", 1) if isinstance(argument, str) else argument
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):  # noqa: PLR2004
            raise UnresolvedError("Fn::GetAtt needs RESOURCE.ATTRIBUTE")
        resource, attribute = parts
        what = f"Fn::GetAtt {resource}.{attribute}"
        if resource not in self._resources:
            raise UnresolvedError(f"{what}: the template has no such resource")
        kind = self._kind(resource, what)
        facts = self._facts(resource)
        if attribute in kind[3]:
            return facts["arn"]
        if attribute in kind[4]:
            return facts["name"]
        raise UnresolvedError(f"{what} is known only after a deployment; write the value here")

    def _kind(self, resource: str, what: str) -> tuple[str, str, str, tuple[str, ...], tuple[str, ...]]:
        kind = _KINDS.get(str(_table(self._resources[resource]).get("Type")))
        if kind is None:
            raise UnresolvedError(f"{what} is known only after a deployment; write the value here")
        return kind

    def _facts(self, resource: str) -> dict[str, str]:
        facts = {"region": self._aws.region, "account": self._aws.account_id, "name": self.name_of(resource)}
        form = self._kind(resource, resource)[2]
        facts["arn"] = f"arn:{self._aws.partition}:{form.format(**facts)}"
        return facts

    def _sub(self, argument: object) -> object:
        template, variables = argument, {}
        if isinstance(argument, list):
            template, variables = self._arguments(argument, 2)
        if not isinstance(template, str) or not isinstance(variables, dict):
            raise UnresolvedError("Fn::Sub needs text, or text and variables")

        def replaced(found: re.Match[str]) -> str:
            name = found[1].strip()
            if name in variables:
                return _as_text(self._value(variables[name]), name)
            if "." in name and name not in self._pseudo and self._published(name) is None:
                return _as_text(self._evaluate("Fn::GetAtt", name), name)
            return _as_text(self._evaluate("Ref", name), name)

        return _VARIABLE.sub(replaced, template).replace("${!", "${")

    def _join(self, argument: object) -> object:
        separator, items = self._arguments(argument, 2)
        items = self._value(items)
        if not isinstance(separator, str) or not isinstance(items, list):
            raise UnresolvedError("Fn::Join needs a separator and a list")
        return separator.join(_as_text(item, "Fn::Join") for item in items)

    def _select(self, argument: object) -> object:
        index, items = (self._value(item) for item in self._arguments(argument, 2))
        if (
            not str(index).isascii()
            or not str(index).isdigit()
            or not isinstance(items, list)
            or int(str(index)) >= len(items)
        ):
            raise UnresolvedError("Fn::Select needs an index and a list that has it")
        return items[int(str(index))]

    def _split(self, argument: object) -> object:
        separator, text = (self._value(item) for item in self._arguments(argument, 2))
        if not isinstance(separator, str) or not separator or not isinstance(text, str):
            raise UnresolvedError("Fn::Split needs a separator and text")
        return text.split(separator)

    def _find_in_map(self, argument: object) -> object:
        names = [self._value(item) for item in self._arguments(argument, 3)]
        found: object = self._mappings
        for name in names:
            found = found.get(name) if isinstance(found, dict) and isinstance(name, str) else None
        if found is None:
            raise UnresolvedError(f"Fn::FindInMap: nothing under {', '.join(str(name) for name in names)}")
        return self._value(found)

    def _if(self, argument: object) -> object:
        condition, yes, no = self._arguments(argument, 3)
        return self._value(yes if self._condition(condition) else no)

    def _equals(self, argument: object) -> object:
        one, other = (self._value(item) for item in self._arguments(argument, 2))
        return _as_text(one, "Fn::Equals") == _as_text(other, "Fn::Equals")

    def _condition(self, name: object) -> bool:
        if not isinstance(name, str) or name not in self._conditions:
            raise UnresolvedError(f"the template has no condition {name}")
        return self._truth(self._conditions[name])

    def _truth(self, value: object) -> bool:
        result = self._value(value)
        if not isinstance(result, bool):
            raise UnresolvedError("a condition must be true or false")
        return result

    @staticmethod
    def _arguments(argument: object, count: int | None) -> list[Any]:
        if not isinstance(argument, list) or (count is not None and len(argument) != count):
            raise UnresolvedError("an intrinsic function has the wrong number of arguments")
        return argument


def intrinsic(value: object) -> tuple[str, object] | None:
    """Return (function, argument) when the value is an intrinsic, in the short or in the long form."""
    if isinstance(value, Tagged):
        return (value.tag if value.tag in _BARE else f"Fn::{value.tag}"), value.value
    if isinstance(value, dict) and len(value) == 1:
        (function,) = value
        if (
            function == "Ref"
            or function.startswith("Fn::")
            or (function == "Condition" and isinstance(value[function], str))
        ):
            return function, value[function]
    return None


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _as_text(value: object, what: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise UnresolvedError(f"{what} is not text")
