"Griffe extension: the comments on parameters, returns and fields become part of the API reference."
import ast, io, re, textwrap, tokenize
from functools import lru_cache

from griffe import Docstring, Extension


def comments(source):
    "{line: comment} of some source."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = {t.start[0]: t.string for t in tokens if t.type == tokenize.COMMENT and not t.string.startswith("#|")}
    return {line: with_subscripts(comment.lstrip("# ").strip()) for line, comment in found.items()}


def with_subscripts(comment):
    "I_{t-1} and I_0 as a page shows them."
    return re.sub(r"(?<=[A-Z])_(?:\{([^}]*)\}|(\d)\b)", lambda found: f"<sub>{found[1] or found[2]}</sub>", comment)


def defaults_of(arguments):
    "{parameter: its default's node}"
    positional = [*arguments.posonlyargs, *arguments.args]
    from_behind = zip(reversed(positional), reversed(arguments.defaults))
    return dict(from_behind) | {p: d for p, d in zip(arguments.kwonlyargs, arguments.kw_defaults) if d}


def parameters_of(arguments):
    "All parameters in the order of the signature."
    starred = [p for p in (arguments.vararg,) if p]
    named = [p for p in (arguments.kwarg,) if p]
    return [*arguments.posonlyargs, *arguments.args, *starred, *arguments.kwonlyargs, *named]


def signature_comments(source):
    "({parameter: comment}, comment on the return) of a function's source."
    function = ast.parse(source).body[0]
    said, lines = comments(source), source.split("\n")
    defaults = defaults_of(function.args)
    ends_on = {p.arg: defaults[p].end_lineno if p in defaults else p.end_lineno for p in parameters_of(function.args)}
    found = {name: said.get(line, "") for name, line in ends_on.items() if name not in ("self", "cls")}

    def code(line): return lines[line - 1].split("#")[0]
    header = range(function.lineno, function.body[0].lineno)
    ends = [line for line in reversed(header) if line in said and re.search(r"\)\s*(->.*)?:\s*$", code(line))]
    returns = ""
    if ends and ("->" in code(ends[0]) or code(ends[0]).strip().startswith(")") or not found):
        returns = said[ends[0]]                         # else it is about the line's parameter
    if returns and ends[0] == function.lineno:
        found = {}
    return {name: comment for name, comment in found.items() if comment}, returns


class Docments(Extension):
    def on_function_instance(self, *, node, func, agent, **kwargs):
        parameters, returns = signature_comments(own_lines(func, agent.filepath))
        parts = [func.docstring.value if func.docstring else ""]
        if parameters:
            parts.append("Args:\n" + "\n".join(f"    {name}: {comment}" for name, comment in parameters.items()))
        if returns:
            said = f"{func.returns}: {returns}" if func.returns is not None else returns.replace(": ", " – ")
            parts.append(f"Returns:\n    {said}")
        text = "\n\n".join(parts)
        if text:
            func.docstring = docstring(text, func, agent)

    def on_attribute_instance(self, *, node, attr, agent, **kwargs):
        if attr.docstring or attr.lineno is None or not attr.parent.is_class: return
        said = comments_of(agent.filepath).get(attr.endlineno)
        if said:
            attr.docstring = docstring(said, attr, agent)


def docstring(text, of, agent):
    options = agent.docstring_options
    return Docstring(text, parent=of, lineno=of.lineno, parser=agent.docstring_parser, parser_options=options)


@lru_cache
def comments_of(path):
    "Comments of a file."
    return comments(path.read_text(encoding="utf-8"))


def own_lines(func, path):
    "A function's source, at the left margin."
    start = func.decorators[0].lineno if func.decorators else func.lineno
    return textwrap.dedent("\n".join(path.read_text(encoding="utf-8").split("\n")[start - 1:func.endlineno]))
