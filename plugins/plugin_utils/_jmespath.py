# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""JMESPath for selectors. Controller only: the target has the standard library and no more."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError

try:
    import jmespath
    import jmespath.exceptions
except ImportError:
    jmespath = None

_FIRST_CHILD = ("subexpression", "index_expression", "projection", "value_projection", "filter_projection",
                "flatten", "pipe")
"""Nodes whose later children are evaluated on the result of the first, not on a function."""


def matching(expression, functions):
    """The functions for which a JMESPath expression is true, as in ``functions[?expression]``.

    Raises ValueError for an expression that cannot be parsed or evaluated or that names a field no
    function has (a typo would otherwise match nothing, or with != everything), and AnsibleFilterError
    when jmespath is missing.
    """
    if jmespath is None:
        raise AnsibleFilterError(
            "selecting a device by match needs the Python library jmespath on the controller; "
            "install it, or select by address or id"
        )
    try:
        parsed = jmespath.compile(expression)
        known = {key for function in functions for key in function}
        unknown = sorted(_fields(parsed.parsed) - known)
        if unknown:
            raise ValueError(
                "%r names %s, which no function has; known fields are %s"
                % (expression, ", ".join(unknown), ", ".join(sorted(known)))
            )
        return _search(expression, functions)
    except jmespath.exceptions.JMESPathError as exc:
        raise ValueError(
            "%r is not a JMESPath expression over one function (%s); write for example vendor == '10de' && "
            "class_name == 'vga'" % (expression, " ".join(str(exc).split()))
        ) from exc


def _search(expression, functions):
    try:
        return jmespath.search("[?%s]" % expression, functions)
    except TypeError as exc:  # contains() with a number is one of Python's: jmespath checks only its first argument
        raise jmespath.exceptions.JMESPathError(str(exc)) from exc


def _fields(node):
    """Names of the fields an expression takes directly from the function it is evaluated on."""
    if node["type"] == "field":
        return {node["value"]}
    if node["type"] == "expref":
        return set()
    children = node["children"]
    if node["type"] in _FIRST_CHILD:
        children = children[:1]
    found = set()
    for child in children:
        found |= _fields(child)
    return found
