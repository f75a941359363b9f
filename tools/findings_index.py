#!/usr/bin/env python
# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/findings/README.md, the list of all codes, from the table of rules. Run it after a change of a rule."""

from __future__ import annotations

import os

from record_tree import HERE, import_collection

INTRODUCTION = """# Findings

A finding is a fact about a machine that speaks for or against handing a device over. Its code is stable. The severity says what a
plan does with it: **refuse** stops the plan, **warn** is worth a look, **info** is for the record and shown by the audit only.

A finding about a function, or about its group, that can be acknowledged is accepted by its code, for exactly that function:

```yaml
vfio_host_acknowledge:
  - {code: VH203, device: "0000:01:00.0"}
```

It is then a warning marked as acknowledged. No other code and no other function is accepted with it. After the function has been
handed over, the entry may stay; one that no longer applies is reported as [VH190](VH190.md).

VH1xx is about isolation, the IOMMU and the plan itself; VH2xx about what the host needs for itself; VH3xx about the kernel, the boot
and what the host has to give; VH4xx about the device.

| code | finding | severity |
|---|---|---|
"""


def main():
    import_collection()
    from ansible_collections.vfio.host.plugins.module_utils._findings.rules import RULES

    rows = ["| [%s](%s.md) | %s | %s |\n" % (code, code, RULES[code]["title"], RULES[code]["severity"]) for code in sorted(RULES)]
    with open(os.path.join(HERE, "docs", "findings", "README.md"), "w", encoding="utf-8") as handle:
        handle.write(INTRODUCTION + "".join(rows))


if __name__ == "__main__":
    main()
