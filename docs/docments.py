"Griffe extension: the comments on parameters, returns and fields become part of the API reference."
import ast, io, re, textwrap, tokenize
from functools import lru_cache

from griffe import Docstring, Extension


def comments(source):
    "{line: comment} of some source."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT and not t.string.startswith("#|")}


def signature_comments(source):
    "({parameter: comment}, comment on the return) of a function's source."
    f = ast.parse(source).body[0]
    said, a = comments(source), f.args
    args = [*a.posonlyargs, *a.args, *([a.vararg] if a.vararg else []), *a.kwonlyargs, *([a.kwarg] if a.kwarg else [])]
    defaults = dict(zip([*a.posonlyargs, *a.args][::-1], a.defaults[::-1])) | {k: d for k, d in zip(a.kwonlyargs, a.kw_defaults) if d}
    found = {p.arg: said.get(getattr(defaults.get(p), "end_lineno", p.end_lineno), "") for p in args if p.arg not in ("self", "cls")}
    head = range(f.lineno, f.body[0].lineno)
    ends = [i for i in reversed(head) if i in said and re.search(r"\)\s*(->.*)?:\s*$", source.split("\n")[i-1].split("#")[0])]
    line = source.split("\n")[ends[0]-1].split("#")[0] if ends else ""
    returns = said[ends[0]] if ends and ("->" in line or line.strip().startswith(")") or not found) else ""      # else it is about the line's parameter
    if ends and returns and ends[0] == f.lineno: found = {}
    return {k: v for k, v in found.items() if v}, returns


class Docments(Extension):
    def on_function_instance(self, *, node, func, agent, **kwargs):
        params, returns = signature_comments(own_lines(func, agent.filepath))
        text = func.docstring.value if func.docstring else ""
        if params: text += "\n\nArgs:\n" + "\n".join(f"    {k}: {v}" for k, v in params.items())
        if returns: text += f"\n\nReturns:\n    {func.returns}: {returns}" if func.returns is not None else f"\n\nReturns:\n    {returns.replace(': ', ' – ')}"
        if text: func.docstring = docstring(text, func, agent)

    def on_attribute_instance(self, *, node, attr, agent, **kwargs):
        if attr.docstring or attr.lineno is None or not attr.parent.is_class: return
        said = comments_of(agent.filepath).get(attr.endlineno)
        if said: attr.docstring = docstring(said, attr, agent)


def docstring(text, of, agent):
    return Docstring(text, parent=of, lineno=of.lineno, parser=agent.docstring_parser, parser_options=agent.docstring_options)


@lru_cache
def comments_of(path):
    "Comments of a file."
    return comments(path.read_text(encoding="utf-8"))


def own_lines(func, path):
    "A function's source, at the left margin."
    start = func.decorators[0].lineno if func.decorators else func.lineno
    return textwrap.dedent("\n".join(path.read_text(encoding="utf-8").split("\n")[start - 1:func.endlineno]))
