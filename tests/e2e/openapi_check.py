#!/usr/bin/python3
"""Holds docs/openapi.yaml against what the daemon does. Run by api_contract.c.

    openapi_check.py FILE routes            prints "METHOD path admin|all" for each operation
    openapi_check.py FILE schema NAME FILE  its schema of that name is the JSON Schema that comes from a table
    openapi_check.py FILE answers           reads real answers, one JSON object a line:
                                            {"method","path","status","type","body","request"}

The answers must be documented ones, by status, content type and schema; request bodies that were accepted must be
valid too, and those that a 400 refused for their form must not be. Then every documented status below
500 must have been seen, but for those in UNSEEN.
"""
import json
import re
import sys

import jsonschema
import yaml

METHODS = ("get", "post", "put", "patch", "delete")

# What a test can't bring about, or only by chance.
UNSEEN = {
    ("POST", "/v1/templates", 409): "only while the template is being removed",
    ("POST", "/v1/templates/{name}/build", 409): "only while the template is being removed",
    ("POST", "/v1/vms/{id}/exec", 429): "only while the VM is being adopted",
    ("POST", "/v1/taps", 429): "takes hundreds of connections; see api_taps.c",
}


def operations(doc):
    for path, item in doc["paths"].items():
        for method in METHODS:
            if method in item:
                yield method.upper(), path, item[method]


def resolve(doc, node):
    while "$ref" in node:
        name = node["$ref"]
        node = doc
        for part in name.lstrip("#/").split("/"):
            node = node[part]
    return node


def validator(doc, schema):
    # References are to the whole description, so the schema is put into it.
    whole = {"components": doc["components"], "allOf": [schema]}
    return jsonschema.Draft202012Validator(whole)


def problems(doc, schema, value):
    for e in validator(doc, schema).iter_errors(value):
        while e.context:  # of oneOf: the branch that got furthest
            e = max(e.context, key=lambda c: len(c.absolute_path))
        yield "%s: %s" % ("/".join(map(str, e.absolute_path)) or "(top)", e.message)


def check_closed(node, where, out):
    """Each object says that there are no other members."""
    if isinstance(node, dict):
        if node.get("type") == "object" and "properties" in node and node.get("additionalProperties") is not False:
            out.append("%s: additionalProperties is not false" % where)
        for k, v in node.items():
            check_closed(v, "%s.%s" % (where, k), out)
    elif isinstance(node, list):
        for i, v in enumerate(node):
            check_closed(v, "%s[%d]" % (where, i), out)


def without_words(node):
    if isinstance(node, dict):
        return {k: without_words(v) for k, v in node.items() if k not in ("description", "title", "$schema")}
    return [without_words(v) for v in node] if isinstance(node, list) else node


def find_path(doc, path):
    for pattern in sorted(doc["paths"], key=lambda p: p.count("{")):
        if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", pattern), path.split("?")[0]):
            return pattern
    return None


def check_answer(doc, a, seen):
    what = "%s %s: %d" % (a["method"], a["path"], a["status"])
    pattern = find_path(doc, a["path"])
    if pattern is None:
        if a["status"] != 404:
            yield "%s: there is no such path" % what
        return
    op = doc["paths"][pattern].get(a["method"].lower())
    if op is None:  # no method of this path: any operation's 405
        op = next(iter(o for m, p, o in operations(doc) if p == pattern and "405" in o["responses"]))
        if a["status"] != 405:
            yield "%s: a method that is not there is a 405" % what
        method = "GET"
    else:
        method = a["method"]
    response = op["responses"].get(str(a["status"]))
    if response is None:
        yield "%s is not documented" % what
        return
    seen.add((method, pattern, a["status"]))
    response = resolve(doc, response)
    content = response.get("content")
    if content is None:
        if a["body"] != "":
            yield "%s: has a body: %s" % (what, a["body"])
    elif a["type"] not in content:
        yield "%s: is %s" % (what, a["type"])
    else:
        texts = a["body"].splitlines() if a["type"] == "application/x-ndjson" else [a["body"]]
        for text in texts:
            for p in problems(doc, content[a["type"]]["schema"], json.loads(text)):
                yield "%s: %s in %s" % (what, p, text)
    for name in response.get("headers", {}):
        if name.lower() not in a["headers"]:
            yield "%s: lacks the header %s" % (what, name)
    if a["request"] and a["status"] < 300:
        schema = resolve(doc, op["requestBody"])["content"]["application/json"]["schema"]
        for p in problems(doc, schema, json.loads(a["request"])):
            yield "%s: was accepted, though %s" % (what, p)
    if a.get("bad_body"):
        schema = resolve(doc, op["requestBody"])["content"]["application/json"]["schema"]
        if not list(problems(doc, schema, json.loads(a["request"]))):
            yield "%s: %s is refused, though the schema allows it" % (what, a["request"])


def check_answers(doc):
    out, seen, n = [], set(), 0
    for line in sys.stdin:
        n += 1
        out += check_answer(doc, json.loads(line), seen)
    for method, path, op in operations(doc):
        for status in op["responses"]:
            key = (method, path, int(status)) if status != "default" else None
            if key and key[2] < 500 and key not in seen and key not in UNSEEN:
                out.append("%s %s: no answer with %s was seen" % (method, path, status))
    for key in UNSEEN:
        if key in seen:
            out.append("%s %s: %d is listed as not seen" % key)
    check_closed(doc, "openapi", out)
    if n == 0:
        out.append("no answers")
    return out


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        doc = yaml.safe_load(f)
    out = []
    if sys.argv[2] == "routes":
        for method, path, op in operations(doc):
            print(method, path, "admin" if op.get("x-admin") else "all")
    elif sys.argv[2] == "schema":
        with open(sys.argv[4], encoding="utf-8") as f:
            if without_words(json.load(f)) != without_words(doc["components"]["schemas"][sys.argv[3]]):
                out.append("%s differs from %s" % (sys.argv[3], sys.argv[4]))
    else:
        out = check_answers(doc)
    for line in out:
        print(line)
    return 1 if out else 0


sys.exit(main())
