"""The parts of the documentation that are made from the code: tables of fields, settings, options.

`.venv/bin/python -m tests.docs.blocks` renews them all; a test fails where that would change one.
Whatever needs words beyond those in the code is written by hand, and read by the tests.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from typing import Any, get_args

import click
import msgspec
from msgspec import inspect

from broker.cli.main import COMMANDS, main
from broker.config import describe
from broker.config_sources import variable_of
from broker.wire import commands
from broker.wire.limits import MAX_ID, Limits
from tests.docs.markdown import DOCS, render, with_blocks

STRUCTS = {kind.__struct_config__.tag: kind for kind in get_args(commands.AnyCommand)}
"""Every command's struct by its name."""


def fields(*names: str) -> str:
    """The fields of commands; those that are alike in several share a row. All have `id`."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for name in names:
        kind = inspect.type_info(STRUCTS[name])
        assert isinstance(kind, inspect.StructType)
        for field in kind.fields:
            if field.name != "id":
                row = (field.encode_name, in_words(field.type), _default(field))
                rows.setdefault(row, []).append(name)
    return render(
        ["field", "of", "type", "if left out"],
        [
            [f"`{field}`", " ".join(f"`{name}`" for name in of), kind, default]
            for (field, kind, default), of in rows.items()
        ],
    )


def _default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    default = field.default
    if default is msgspec.NODEFAULT:
        default = field.default_factory()
    return "" if default is None else f"`{json.dumps(default)}`"


def in_words(kind: Any) -> str:
    """A field's type as a client author would say it. What may be left out is not named here."""
    match kind:
        case inspect.UnionType(types=types):
            # `null` is the same as leaving a field out.
            return " or ".join(in_words(t) for t in types if not isinstance(t, inspect.NoneType))
        case inspect.StrType(min_length=low, max_length=high):
            return "string" + _bounds(low, high, "characters")
        case inspect.IntType(ge=low, le=high):
            return f"integer, {low} to {'2^53-1' if high == MAX_ID else high}"
        case inspect.BoolType():
            return "boolean"
        case inspect.LiteralType(values=values):
            return " or ".join(f"`{value}`" for value in values)
        case inspect.ListType(item_type=item, min_length=low, max_length=high):
            return f"list{_bounds(low, high, 'items')}: {in_words(item)}"
        case inspect.DictType(value_type=inspect.AnyType()):
            return "map"
        case inspect.DictType(value_type=value):
            return f"map of string to {in_words(value)}"
        case inspect.StructType(fields=parts):
            return "map with " + ", ".join(f"`{p.encode_name}`: {in_words(p.type)}" for p in parts)
    raise AssertionError(f"no words for {kind}")


def _bounds(low: int | None, high: int | None, unit: str) -> str:
    if high is None:
        return ""
    return f", {low} to {high} {unit}" if low else f", up to {high} {unit}"


def limits() -> str:
    """The limits that `welcome` announces."""
    kind = inspect.type_info(Limits)
    assert isinstance(kind, inspect.StructType)
    settings = {setting.key: setting for setting in describe()}
    rows = [
        [f"`{f.encode_name}`", f"{f.default}", settings[f"limits.{f.encode_name}"].meaning]
        for f in kind.fields
    ]
    return render(["limit", "default", "what it bounds"], rows)


def settings() -> str:
    """Every key of the configuration."""
    rows = []
    for setting in describe():
        shown = "none" if setting.default in (None, ()) else f"`{setting.default}`"
        rows.append([f"`{setting.key}`", _escaped(setting.type), shown, _escaped(setting.meaning)])
    return render(["key", "type", "default", "meaning"], rows)


def variables() -> str:
    """Two examples of a key's variable, so that the rule can be seen."""
    keys = ("http.port", "outbox.high_bytes")
    return render(["key", "variable"], [[f"`{key}`", f"`{variable_of(key)}`"] for key in keys])


def cli(*path: str) -> str:
    """The usage and the options of one subcommand."""
    command: click.Command = main
    context = click.Context(main, info_name="parley")
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(context, name)
        assert found is not None, f"parley {' '.join(path)}"
        command, context = found, click.Context(found, info_name=name, parent=context)
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    arguments = [p.make_metavar(context) for p in command.params if isinstance(p, click.Argument)]
    usage = " ".join(["parley", *path, *(["[OPTIONS]"] if options else []), *arguments])
    rows = [[f"`{_option(each)}`", _escaped(_meaning(each))] for each in options]
    return f"    {usage}\n\n" + (render(["option", "meaning"], rows) if rows else "")


def _option(option: click.Option) -> str:
    kind = option.type
    if option.is_flag:
        value = ""
    elif option.metavar:
        value = option.metavar
    elif isinstance(kind, click.Choice):
        value = "|".join(kind.choices)
    elif isinstance(kind, click.Path):
        value = "PATH"
    elif isinstance(kind, click.types.FuncParamType):
        value = kind.name.upper()
    elif isinstance(kind, click.types.StringParamType):
        value = "TEXT"
    else:
        value = "N"
    return _escaped(" ".join([option.opts[0], *([value] if value else [])]))


def _meaning(option: click.Option) -> str:
    words = [option.help] if option.help else []
    if option.show_default and isinstance(option.default, str | int | float):
        words.append(f"[default: {option.default}]")
    if option.envvar:
        words.append(f"[variable: `{option.envvar}`]")
    return " ".join(words)


def commands_of_cli() -> str:
    """The list of subcommands."""
    rows = [[f"`parley {name}`", words] for name, (_, words) in COMMANDS.items()]
    return render(["command", "what it does"], rows)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


MAKERS: dict[str, Callable[..., str]] = {
    "fields": fields,
    "limits": limits,
    "settings": settings,
    "variables": variables,
    "cli": cli,
    "commands": commands_of_cli,
}


def make(name: str) -> str:
    """The block of that name; words after the first are its arguments."""
    maker, *arguments = name.split()
    return MAKERS[maker](*arguments)


_BOUND = re.compile(r"(?m)^(\| `(?P<name>[\w/]+\.py:[\w.]+)` \| )[^|]*( \|)")


def with_values(text: str) -> str:
    """The document with the value of every bound in its tables as it is in the code."""
    return _BOUND.sub(lambda m: f"{m[1]}{value_of(m['name'])}{m[3]}", text)


def value_of(reference: str) -> object:
    """What `file.py:NAME` or `file.py:Struct.field` (its default) is."""
    file, _, name = reference.partition(":")
    value: Any = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    for part in name.split("."):
        value = getattr(value, part)
        if isinstance(value, type):
            value = value()
    return value


def renewed(text: str) -> str:
    """The document as it would be written from the code."""
    return with_values(with_blocks(text, make))


if __name__ == "__main__":
    for path in sorted(DOCS.glob("*.md")):
        path.write_text(renewed(path.read_text()))
