# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The end of a module: of one that changes a host, and of one whose result is large.

AnsibleModule.exit_json() copies the whole result to take secrets out of it, and has each value encoded by itself. Of
a machine document that is a third of what a module costs beside its imports. Where there is no secret among the
options and nothing to warn of, the same JSON is written in one go.
"""

from __future__ import annotations

import json
import sys

from ansible.module_utils.common import warnings

from ansible_collections.vfio.host.plugins.module_utils._host import HostError

_THEIRS = "ansible.module_utils.basic"


def answer(module, work, errors=(ValueError, HostError)):
    """End with what ``work()`` returns, or with the message of one of ``errors``.

    Of the result, ``warnings`` are told as such, and ``diff`` is left out unless it was asked for.
    """
    try:
        result = work()
    except errors as exc:
        module.fail_json(msg=str(exc))
    for warning in result.pop("warnings", ()):
        module.warn(warning)
    if not module._diff:
        del result["diff"]
    module.exit_json(**result)


def exit_json(module, **result):
    """``module.exit_json(**result)``; ``result`` must be plain data: text, numbers, lists and dicts."""
    warned = warnings.get_warning_messages() or warnings.get_deprecation_messages()
    if module.no_log_values or warned or _replaced(module):
        module.exit_json(**result)
    module.do_cleanup_files()
    sys.stdout.write("\n%s\n" % json.dumps(dict(result, invocation={"module_args": module.params})))
    raise SystemExit(0)


def _replaced(module):
    """Whether somebody else wants the result: tests, and what runs modules in a process of its own."""
    for name in ("exit_json", "_return_formatted", "_record_module_result"):
        method = getattr(module, name, None)
        if method is not None and getattr(method, "__module__", None) != _THEIRS:
            return True
    return False
