"""As much of JSON Schema as kdiff's own schemas use. A keyword that is not here is an error."""

import re

NAMES = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int}
SAY_NOTHING = {"$schema", "$defs", "title", "description"}
TESTS = {
    "type": lambda v, kind: isinstance(v, NAMES[kind]) and not isinstance(v, bool),
    "const": lambda v, one: v == one,
    "enum": lambda v, some: v in some,
    "required": lambda v, keys: set(keys) <= v.keys(),
    "minProperties": lambda v, n: len(v) >= n,
    "minItems": lambda v, n: len(v) >= n,
    "maxItems": lambda v, n: len(v) <= n,
    "maxLength": lambda v, n: len(v) <= n,
    "pattern": lambda v, text: re.search(text, v) is not None,
    "minimum": lambda v, least: v >= least,
    "maximum": lambda v, most: v <= most,
    "exclusiveMinimum": lambda v, least: v > least,
}


def fits(value, schema, root=None):
    """Whether a value of JSON is as the schema says."""
    root = root or schema
    if "$ref" in schema:
        return fits(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    tests = {key: rule for key, rule in schema.items() if key in TESTS}
    rest = schema.keys() - tests.keys() - SAY_NOTHING
    assert rest <= {"properties", "patternProperties", "additionalProperties", "items"}, rest
    if not all(TESTS[key](value, rule) for key, rule in tests.items()):
        return False
    if isinstance(value, list):
        return all(fits(one, schema.get("items", {}), root) for one in value)
    if not isinstance(value, dict):
        return True
    for key, one in value.items():
        rules = [schema["properties"][key]] if key in schema.get("properties", {}) else []
        patterns = schema.get("patternProperties", {})
        rules += [rule for pattern, rule in patterns.items() if re.search(pattern, key)]
        if not rules and schema.get("additionalProperties", True) is False:
            return False
        if not all(fits(one, rule, root) for rule in rules):
            return False
    return True
