"""How the page looks: one accent, two themes, any width, and paper."""

from worker.page.markup import Html

THEMES = {
    "light": {
        "paper": "#ffffff",
        "panel": "#f6f7f9",
        "ink": "#15191e",
        "quiet": "#56606b",
        "rule": "#dfe3e8",
        "grid": "#e9ecf0",
        "accent": "#0b5cb5",
        "accent-soft": "#5b92cf",
        "accent-pale": "#cfe0f3",
        "warn": "#a85f00",
        "warn-pale": "#f7e3c4",
        "bad": "#b3261e",
        "bad-pale": "#f6d5d2",
        "grey": "#7b858f",
        "grey-pale": "#e4e8ec",
    },
    "dark": {
        "paper": "#101317",
        "panel": "#171b21",
        "ink": "#e7eaee",
        "quiet": "#9ca6b1",
        "rule": "#2b323a",
        "grid": "#21272e",
        "accent": "#6db0f7",
        "accent-soft": "#4a7fb8",
        "accent-pale": "#1d3a59",
        "warn": "#f0b35a",
        "warn-pale": "#4a3616",
        "bad": "#ff8f85",
        "bad-pale": "#55221e",
        "grey": "#838d98",
        "grey-pale": "#2b323a",
    },
}
"""The colours. Paper is white: dark is for screens alone."""


def _variables(theme: str) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in THEMES[theme].items())


_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
main,footer{max-width:67rem;margin:0 auto;padding:0 1.5rem}
main{padding-top:3rem}
h1,h2,h3,p,dl,dd,ul,figure,table{margin:0;padding:0}
h1{font-size:clamp(1.75rem,1.2rem + 2.4vw,2.75rem);line-height:1.12;letter-spacing:-.022em;font-weight:680;
text-wrap:balance}
h2{font-size:1.25rem;line-height:1.3;letter-spacing:-.01em;font-weight:650;margin-bottom:1rem}
h3{font-size:.9375rem;font-weight:620}
h3 small{font-size:.8125rem;font-weight:400;color:var(--quiet)}
a{color:var(--accent);text-decoration-thickness:1px;text-underline-offset:.18em}
a:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
section{margin-top:3rem;padding-top:1.5rem;border-top:1px solid var(--rule)}
footer{margin-top:3rem;padding-bottom:3rem;color:var(--quiet);font-size:.8125rem}
td,th,dd,.lead{unicode-bidi:isolate}
.eyebrow{color:var(--accent);font-size:.875rem;font-weight:620;margin-bottom:.5rem}
.lead{margin-top:.9rem;font-size:1.0625rem;color:var(--quiet);max-width:46rem}
.note,.quiet{color:var(--quiet)}
.note{font-size:.9375rem;max-width:46rem}
.code,.settings{font-family:ui-monospace,SFMono-Regular,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;
font-size:.8125rem}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:.75rem 1.5rem;margin-top:1.75rem;
font-size:.875rem}
dt{color:var(--quiet);font-size:.8125rem}
.figures{display:grid;grid-template-columns:repeat(4,1fr);margin-top:2rem;border:1px solid var(--rule);
border-radius:10px;background:var(--panel)}
.figures>div{padding:1rem 1.25rem}
.figures>div+div{border-left:1px solid var(--rule)}
.figures dd{color:var(--quiet);font-size:.8125rem}
.figures .figure{color:var(--ink);font-size:1.75rem;line-height:1.25;letter-spacing:-.02em;font-weight:620}
.figures .none{color:var(--quiet);font-weight:400}
table{border-collapse:collapse;width:100%;font-size:.875rem}
caption{text-align:left;color:var(--quiet);font-size:.8125rem;padding-bottom:.4rem}
th,td{text-align:left;vertical-align:top;padding:.5rem 1.25rem .5rem 0;border-top:1px solid var(--rule);font-weight:400}
th:last-child,td:last-child{padding-right:0}
thead th{color:var(--quiet);font-size:.8125rem;border-top:0;padding-bottom:.35rem;white-space:nowrap}
.n{text-align:right}
.cards{table-layout:fixed}
.cards th{width:7rem}
thead .code{font-family:inherit}
.cards th.id{width:4rem}
.cards th.n{width:5.75rem}
.cards th.when{width:9.5rem}
.cards th.place{width:9.5rem}
.cards th.sid{width:13rem}
.runs th.n{width:4.9rem}
.runs th.when{width:8.75rem}
.runs th:first-child{width:3rem}
.cards th.grow{width:auto}
.cards .strong,.cards b{font-weight:600}
.cards+.note,.note+.note{margin-top:1rem}
.decisions{margin-top:2rem}
.bar{display:block;margin-bottom:1.5rem;border-radius:5px}
.bar rect{stroke:var(--paper)}
.accounts{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,22rem);gap:2rem 3.5rem;align-items:start}
.account{table-layout:fixed}
.account th{width:8.75rem}
.account .n{width:5.75rem}
.account .part{width:5.25rem}
.account .part,.account .about{color:var(--quiet)}
.account .sum>*{border-top:1px solid var(--quiet);font-weight:620}
.accounts div+table .about{display:none}
.swatch{margin-right:.6rem;vertical-align:-1px}
.identity,.accounts p.bad{margin-top:.75rem;font-size:.9375rem}
.identity b{color:var(--accent)}
p.bad{color:var(--bad);font-weight:620}
.of-created{fill:var(--accent)}
.of-existed{fill:url(#accent-lines)}
.of-already-done{fill:var(--accent-soft)}
.of-closed{fill:var(--grey-pale);stroke:var(--grey)}
.of-duplicate{fill:var(--grey)}
.of-waived{fill:url(#grey-lines)}
.of-rejected{fill:var(--bad)}
.of-parked{fill:var(--warn)}
.of-failed{fill:url(#bad-lines)}
.of-in-doubt{fill:url(#warn-lines)}
.of-not-sent{fill:url(#grey-dots)}
.of-unread,.of-other{fill:var(--grey-pale)}
.swatch .of-unread,.swatch .of-other{stroke:var(--grey)}
.hidden{position:absolute}
.accent-pale{fill:var(--accent-pale)}.grey-pale{fill:var(--grey-pale)}
.bad-pale{fill:var(--bad-pale)}.warn-pale{fill:var(--warn-pale)}
.accent-ink{stroke:var(--accent)}.grey-ink{stroke:var(--grey)}.bad-ink{stroke:var(--bad)}.warn-ink{stroke:var(--warn)}
.grey-dot{fill:var(--grey)}
figure{margin-top:2rem;break-inside:avoid}
.keys{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem 1.5rem;margin:.35rem 0 .9rem;font-size:.8125rem;
color:var(--quiet)}
.keys li{display:flex;gap:.5rem;align-items:baseline}
.keys b{color:var(--ink);font-weight:600}
.sample{flex:none;align-self:center}
.chart{padding:8px 28px 0 56px}
.chart svg{display:block;overflow:visible}
.chart text{font-size:12px;fill:var(--quiet)}
.level{text-anchor:end;dominant-baseline:central}
.middle{text-anchor:middle}.end{text-anchor:end}
.day{font-weight:600}
.plot path,.sample path{vector-effect:non-scaling-stroke}
.band{stroke:none;fill-opacity:.22}
.band.first{fill:var(--accent)}.band.second{fill:var(--accent-soft)}.band.third{fill:var(--grey)}
.band.bound{fill:var(--ink);fill-opacity:.12}
.line{fill:none;stroke-linejoin:round;stroke-linecap:round}
.line.first{stroke:var(--accent);stroke-width:1.75}
.line.second{stroke:var(--accent-soft);stroke-width:1.5;stroke-dasharray:6 3;stroke-linecap:butt}
.line.third{stroke:var(--grey);stroke-width:1.5;stroke-dasharray:.1 3}
.line.bound{stroke:var(--ink);stroke-width:1.25;stroke-dasharray:7 4;stroke-linecap:butt}
.behind{fill:var(--accent-soft)}
.before{fill:var(--warn)}
.grid,.floor{fill:none;stroke:var(--grid)}
.floor{stroke:var(--grey)}
.settings{columns:2;column-gap:3.5rem}
.settings>div{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:1rem;padding:.3rem 0;
border-top:1px solid var(--rule);break-inside:avoid}
.settings dt{font-size:inherit}
@media screen and (max-width:50rem){
.accounts{grid-template-columns:minmax(0,1fr)}
.settings{columns:1}
.figures{grid-template-columns:1fr 1fr}
.figures>div:nth-child(odd){border-left:0}
.figures>div:nth-child(n+3){border-top:1px solid var(--rule)}
.cards,.cards tbody,.cards tr,.cards td,.cards caption{display:block}
.cards thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.cards tr{border-top:1px solid var(--rule);padding:.75rem 0}
.cards td{display:grid;grid-template-columns:6.5rem minmax(0,1fr);column-gap:.75rem;border:0;
padding:.15rem 0;text-align:left}
.cards td>*{grid-column:2}
.cards td::before{content:attr(data-label);color:var(--quiet);font:.8125rem/1.5 system-ui,-apple-system,"Segoe UI",
Roboto,"Helvetica Neue",Arial,sans-serif;grid-column:1;grid-row:1}
}
@media screen and (max-width:40rem){
main,footer{padding-left:1rem;padding-right:1rem}
main{padding-top:1.75rem}
section{margin-top:2.25rem;padding-top:1.25rem}
.figures>div{padding:.75rem 1rem}
.figures .figure{font-size:1.5rem}
.chart{padding-left:44px;padding-right:12px}
.wide{display:none}
.account tr{display:grid;grid-template-columns:minmax(0,1fr) auto 4rem;border-top:1px solid var(--rule);
padding:.4rem 0}
.account th,.account td,.account .n,.account .part{border:0;padding:0;width:auto}
.account .sum{border-top-color:var(--quiet)}
.account .sum>*{border:0}
.account .about{grid-column:1/-1;padding-left:1.35rem;font-size:.8125rem}
.account .about:empty{display:none}
}
@media print{
:root{color-scheme:light}
@page{margin:14mm}
html{font-size:11.5px}
main,footer{max-width:none;padding:0}
section{margin-top:1.5rem;padding-top:1rem}
h2,h3,caption,thead{break-after:avoid}
tr,.figures,.accounts,.bar{break-inside:avoid}
.figures{background:none}
a{color:inherit;text-decoration:none}
}
"""

STYLE = Html(
    f":root{{color-scheme:light dark;{_variables('light')}}}\n"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables('dark')}}}}}{_RULES}"
)
"""The style sheet, as it stands in the page."""
