# Copyright (c) 2026, vfio.host contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Private to the vfio.host collection: no promise is made to code outside it.

"""The style of the pages: one set of colors for light, one for dark, each with a contrast of at least 4.5."""

from __future__ import annotations

LIGHT = {
    "page": "#f6f7f9",
    "paper": "#ffffff",
    "ink": "#1b2330",
    "muted": "#566073",
    "line": "#cfd6e0",
    "link": "#0b57b0",
    "good": "#17692f",
    "bad": "#b3261e",
    "warn": "#8a4b00",
    "host": "#5b3fa8",
    "grey": "#566073",
    "good-paper": "#eaf6ec",
    "bad-paper": "#fcecea",
    "warn-paper": "#fdf3e2",
    "host-paper": "#f0ecfa",
    "bridge": "#eef1f5",
    "c1": "#0b57b0",
    "c2": "#8a4b00",
    "c3": "#7a2e8e",
    "c4": "#17692f",
    "c5": "#a3265f",
    "c6": "#0b6670",
    "p1": "#e3eefb",
    "p2": "#fbeedd",
    "p3": "#f5e8f8",
    "p4": "#e3f3e6",
    "p5": "#fbe6ef",
    "p6": "#dff2f3",
}
DARK = {
    "page": "#12161d",
    "paper": "#1a2029",
    "ink": "#e6eaf0",
    "muted": "#a3adbd",
    "line": "#3a4454",
    "link": "#8ab8ff",
    "good": "#7fd696",
    "bad": "#ff9d94",
    "warn": "#f0b866",
    "host": "#c3b0ff",
    "grey": "#a3adbd",
    "good-paper": "#16301d",
    "bad-paper": "#3b1d1b",
    "warn-paper": "#352713",
    "host-paper": "#2a2342",
    "bridge": "#242c38",
    "c1": "#8ab8ff",
    "c2": "#f0b866",
    "c3": "#e0a6f0",
    "c4": "#7fd696",
    "c5": "#ff9fc6",
    "c6": "#74d4de",
    "p1": "#182a42",
    "p2": "#33270f",
    "p3": "#301f38",
    "p4": "#16301d",
    "p5": "#3a1c2a",
    "p6": "#13302f",
}


def _variables(colors):
    return "".join("--%s:%s;" % color for color in colors.items())


STYLE = (
    ":root{color-scheme:light dark;"
    + _variables(LIGHT)
    + "}\n@media(prefers-color-scheme:dark){:root{"
    + _variables(DARK)
    + "}}\n"
    + """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-padding-top:1rem}
body{margin:0 auto;max-width:72rem;padding:1.25rem;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;overflow-wrap:anywhere}
h1{font-size:1.7rem;line-height:1.2;margin:0}h2{font-size:1.25rem;margin:0 0 .75rem}h3{font-size:1rem;margin:0 0 .4rem}
p{margin:.25rem 0 .75rem}ul{margin:.25rem 0;padding-left:1.2rem}
a{color:var(--link)}
a:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:2px solid var(--link);outline-offset:2px}
code,.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.92em}
.muted{color:var(--muted)}.defs{position:absolute}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1rem;margin:1rem 0;font-size:.95rem}nav a{padding:.15rem 0}
section{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:1rem 1.25rem;margin:0 0 1rem}
footer{color:var(--muted);font-size:.85rem;margin:1rem 0}
.back{margin:0 0 .5rem}
.sign{width:18px;height:18px;flex:none;fill:none;stroke:currentColor;stroke-width:1.8;stroke-linecap:round;
stroke-linejoin:round;
vertical-align:-3px;display:inline-block}
.s-assignable,.s-card{color:var(--good)}.s-with_group,.s-unknown,.s-open{color:var(--warn)}
.s-host_uses{color:var(--host)}
.s-never,.s-no_iommu{color:var(--grey)}
.headline{list-style:none;padding:0;margin:.9rem 0 0}
.headline li{display:flex;gap:.6rem;align-items:flex-start;padding:.45rem .8rem;margin:0 0 .35rem;border-radius:8px;
background:var(--paper);border:1px solid var(--line)}
.headline .sign{margin-top:3px}
.headline .good{background:var(--good-paper);border-color:var(--good)}.headline .good .sign{color:var(--good)}
.headline .bad{background:var(--bad-paper);border-color:var(--bad)}.headline .bad .sign{color:var(--bad)}
.headline .careful{background:var(--warn-paper);border-color:var(--warn)}.headline .careful .sign{color:var(--warn)}
.offers,.legend{list-style:none;padding:0}
.offers li{display:grid;grid-template-columns:minmax(8rem,15rem) 1fr;gap:.1rem 1rem;padding:.4rem 0;
border-top:1px solid var(--line)}
.offers li:first-child{border-top:0}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1.4rem;font-size:.92rem;margin:0 0 .75rem}
.legend li{display:flex;gap:.4rem}
.legend .sign{margin-top:3px}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:8px;background:var(--paper)}
.topology{display:block;min-width:900px;width:100%;height:auto}
.topology text{fill:var(--ink);font-size:13.5px}
.topology .mono{font-size:13px}.topology .small{font-size:12px}.topology .strong{font-weight:600}
.topology .label{font-size:12.5px;font-weight:600}
.topology .muted{fill:var(--muted)}.topology .end{text-anchor:end}
.topology text.s-assignable,.topology text.s-card{fill:var(--good)}.topology text.s-host_uses{fill:var(--host)}
.topology text.s-with_group,.topology text.s-unknown,.topology text.s-open{fill:var(--warn)}
.topology text.s-never,.topology text.s-no_iommu{fill:var(--grey)}
.topology a{text-decoration:none}.topology a:hover .box,.topology a:focus .box{stroke:var(--link);stroke-width:2}
.rail{fill:none;stroke:var(--muted);stroke-width:1.5}
.root{fill:var(--bridge);stroke:var(--muted)}
.box{fill:var(--paper);stroke:var(--line);stroke-width:1}
.box.bridge{fill:var(--bridge)}.box.open{stroke:var(--warn);stroke-width:1.5;stroke-dasharray:5 3}
.box.v-assignable,.box.v-card{stroke:var(--good)}.box.v-with_group,.box.v-unknown{stroke:var(--warn)}
.box.v-host_uses{stroke:var(--host);stroke-width:2;fill:var(--host-paper)}
.group{fill:none;stroke:var(--line)}.group.predicted{stroke-dasharray:6 4}
.label.t0{fill:var(--muted)}
.finding{border-left:5px solid var(--muted);padding:.1rem 0 .1rem .9rem;margin:0 0 1.1rem}
.finding.refuse{border-color:var(--bad)}.finding.warn{border-color:var(--warn)}
.finding>ul{padding-left:1.1rem}.finding li li{color:var(--muted)}
.remedy{margin:.4rem 0 0}
.tag{display:inline-block;border-radius:5px;padding:0 .45rem;margin-right:.2rem;font-size:.82rem;line-height:1.5;
color:var(--muted);border:1px solid currentColor}
.refuse .tag{color:var(--bad);background:var(--bad-paper)}.warn .tag{color:var(--warn);background:var(--warn-paper)}
table{width:100%;border-collapse:collapse;margin:0 0 .75rem}
th,td{text-align:left;vertical-align:top;padding:.45rem .6rem .45rem 0;border-top:1px solid var(--line)}
thead th{border-top:0;color:var(--muted);font-weight:600}td ul{margin:0}
td:first-child{min-width:6rem}
summary{cursor:pointer;padding:.3rem 0}
.function{border-top:1px solid var(--line)}.function:first-of-type{border-top:0}
.function summary .sign{margin:0 .5rem 0 .3rem}.verdict{font-weight:600;margin-left:.4rem;white-space:nowrap}
.function>div{padding:.2rem 0 .8rem 1.6rem}
.function>div:target{background:var(--bridge);border-radius:6px}
dl{display:grid;grid-template-columns:minmax(6rem,10rem) 1fr;gap:.2rem 1rem;margin:0}
dt{color:var(--muted)}dd{margin:0;min-width:0}
dd ul{margin:0}
.num{text-align:right;font-variant-numeric:tabular-nums}
"""
    + "".join(
        ".group.c%d{fill:var(--p%d);stroke:var(--c%d);stroke-width:1.5}"
        ".topology text.t%d{fill:var(--c%d)}.t%d{color:var(--c%d)}\n"
        % ((number,) * 7)
        for number in range(1, 7)
    )
    + """
@media(min-width:40.01rem){td:nth-child(2):not(:last-child) li{min-width:11rem}}
@media(max-width:40rem){
body{padding:.75rem}section{padding:.8rem}h1{font-size:1.4rem}
.offers li,dl{grid-template-columns:1fr}dt{margin-top:.4rem}
table,tbody,tr,td{display:block}thead{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden}
tr{border-top:1px solid var(--line);padding:.4rem 0}td{border:0;padding:.1rem 0}td.num{text-align:left}
td:empty{display:none}td::before{content:attr(data-label) ": ";color:var(--muted)}
.function>div{padding-left:.3rem}
}
@media print{
:root{"""
    + _variables(LIGHT)
    + """}
body{max-width:none;padding:0;background:#fff}nav,.back{display:none}section{border:0;padding:0;margin:0 0 1.5rem}
.scroll{overflow:visible;border:0}.topology{min-width:0}.finding,.function,tr{break-inside:avoid}
details::details-content{content-visibility:visible;display:block;height:auto}
}
"""
)
