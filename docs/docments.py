"Griffe extension: the comments on parameters, returns and fields become part of the API reference."
import ast, io, tokenize

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
    lines, before = source.split("\n"), f.body[0].lineno
    end = next((i for i in range(before - 1, f.lineno - 1, -1) if i in said and (")" in lines[i-1].split("#")[0])), None)
    last = lines[end-1].split("#")[0] if end else ""
    returns = said[end] if end and ("->" in last or last.strip().startswith(")") or "def " in last and not found) else ""
    if end and "->" in last: found = {k: v for k, v in found.items() if not (v == returns and last.strip().startswith("def "))}
    return {k: v for k, v in found.items() if v}, returns


class Docments(Extension):
    def on_function_instance(self, *, node, func, agent, **kwargs):
        params, returns = signature_comments(ast.unparse(node) if not agent.filepath else _source(func, agent))
        text = func.docstring.value if func.docstring else ""
        if params: text += "\n\nArgs:\n" + "\n".join(f"    {k}: {v}" for k, v in params.items())
        if returns and func.returns is not None: text += f"\n\nReturns:\n    {returns}"
        elif returns: text += f"\n\nReturns: {returns}"
        if text: func.docstring = Docstring(text.strip(), parent=func, lineno=func.lineno)

    def on_attribute_instance(self, *, node, attr, agent, **kwargs):
        if attr.docstring or attr.lineno is None or not attr.parent.is_class: return
        said = comments_of(agent.filepath).get(attr.endlineno)
        if said: attr.docstring = Docstring(said, parent=attr, lineno=attr.lineno)


_files = {}
def comments_of(path):
    "Comments of a file, read once."
    if path not in _files: _files[path] = comments(path.read_text(encoding="utf-8"))
    return _files[path]


def _source(func, agent):
    "A function's own lines, at the left margin."
    import textwrap
    lines = agent.filepath.read_text(encoding="utf-8").split("\n")
    start = (func.decorators[0].lineno if func.decorators else func.lineno) - 1
    return textwrap.dedent("\n".join(lines[start:func.endlineno]))
