"""The look of the report's page: light and dark as the reader's system has it, from a phone's width on."""

from typing import Final

CSS: Final = """
:root{color-scheme:light dark;--bg:#f6f6f3;--card:#fff;--ink:#1b1f24;--soft:#5d6670;--line:#dfe1dd;--grid:#e9eae6;
  --curve:#2459a6;--dot:#7d9cc6;--band:#2f8f6b;--usual:#8a9099;--seen:#7a3fa0;--low:#3d76a8;--medium:#a87200;
  --high:#c74c1e;--critical:#a8123a;--on:#fff}
@media(prefers-color-scheme:dark){
  :root{--bg:#14171a;--card:#1c2024;--ink:#e4e6e8;--soft:#98a1aa;--line:#30363c;--grid:#272c31;--curve:#7db0f5;
  --dot:#4c719f;--band:#4fbf93;--usual:#7c858e;--seen:#c79be6;--low:#6ba3d6;--medium:#dfa62f;--high:#f07f4f;
  --critical:#f0506e;--on:#14171a}
}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1240px;padding:1.5rem 1.25rem 3rem;background:var(--bg);color:var(--ink);
  font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",sans-serif;
  font-variant-numeric:tabular-nums}
h1{font-size:1.35rem;margin:0}
h2{font-size:1.02rem;margin:2rem 0 .6rem}
h3{font-size:.9rem;margin:1.1rem 0 .35rem}
p{margin:.4rem 0;max-width:100ch}
a{color:inherit}
code,.id{font:12px/1.4 ui-monospace,"DejaVu Sans Mono",monospace}
.soft,.note{color:var(--soft)}
.note{font-size:.86em;max-width:none}
.card{background:var(--card);border:1px solid var(--line);border-radius:6px}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:1px;margin:1rem 0 0;
  overflow:hidden;}
.facts div{padding:.5rem .8rem;box-shadow:0 0 0 1px var(--line)}
.facts .wide{grid-column:span 2}
dt{color:var(--soft);font-size:.82em}
dd{margin:0;font-weight:600;overflow-wrap:anywhere}
.counts{display:flex;flex-wrap:wrap;gap:.4rem .9rem;margin:.9rem 0 0}
.sev{display:inline-block;min-width:4.6rem;padding:0 .45rem;border-radius:3px;background:var(--c);color:var(--on);
  font-size:.8em;font-weight:600;line-height:1.6;text-align:center}
.low{--c:var(--low)}
.medium{--c:var(--medium)}
.high{--c:var(--high)}
.critical{--c:var(--critical)}
.other{--c:var(--usual)}
.time{padding:.6rem .9rem .8rem}
.lane{display:grid;grid-template-columns:19rem 1fr;align-items:center;column-gap:.8rem;min-height:1.3rem;
  border-top:1px solid var(--grid)}
.lane:first-child{border:0}
.lane .name{overflow:hidden;text-overflow:ellipsis;white-space:nowrap;font-size:.86em}
.lane b{font-weight:600}
.track{position:relative;height:1rem}
.track a{position:absolute;top:.15rem;bottom:.15rem;min-width:4px;border-radius:2px;background:var(--c)}
.track a.open{border-top-right-radius:0;border-bottom-right-radius:0;border-right:3px double var(--card)}
.track a:hover,.track a:focus{outline:2px solid var(--ink)}
.plot{position:relative}
.plot svg{display:block;width:100%;height:100%;overflow:visible}
.plot path,.plot rect{vector-effect:non-scaling-stroke}
.plot path{fill:none;stroke-linejoin:round}
.plot .y,.plot .x{position:absolute;color:var(--soft);font-size:11px;line-height:1;white-space:nowrap}
.plot .y{left:.1rem;padding:1px 2px;transform:translateY(-110%);
  background:color-mix(in srgb,var(--card) 70%,transparent)}
.plot .x{top:calc(100% + 5px);transform:translateX(-50%)}
.traffic{height:84px;margin:.3rem 0 1.3rem}
.curve{height:230px;margin:.7rem .4rem 1.6rem}
.grid{stroke:var(--grid)}
path.flow{fill:var(--dot);opacity:.55}
path.errors{fill:var(--high)}
path.value{stroke:var(--dot);stroke-width:3;stroke-linecap:round}
path.smooth{stroke:var(--curve);stroke-width:1.8}
path.expected{stroke:var(--band);stroke-width:1.6;stroke-dasharray:5 3}
.band{fill:var(--band);opacity:.17}
.usual{fill:var(--usual);opacity:.17}
path.middle{stroke:var(--usual);stroke-width:1.4;stroke-dasharray:2 3}
.span{fill:var(--c);opacity:.13}
.edge{fill:var(--c)}
.known{--c:var(--seen);fill:var(--seen)}
.mark{position:absolute;width:9px;height:9px;margin:-4.5px;border:1.6px solid var(--seen);border-radius:50%;
  background:var(--card)}
.mark.beyond{border-radius:0;border-width:0 5px 9px;border-color:transparent transparent var(--seen);width:0;
  height:0;background:none;margin:0 -5px}
.mark.below{transform:rotate(180deg)}
.said{position:absolute;width:7px;height:7px;margin:-3.5px;background:var(--c);outline:1px solid var(--card);
  transform:rotate(45deg)}
.legend{display:flex;flex-wrap:wrap;gap:.15rem 1.1rem;color:var(--soft);font-size:.84em;margin:.1rem .4rem .3rem}
.legend i{display:inline-block;width:1.3em;height:.7em;margin-right:.4em;vertical-align:middle}
.legend .k-smooth{height:0;border-top:2px solid var(--curve)}
.legend .k-value{width:.5em;height:.5em;border-radius:50%;background:var(--dot)}
.legend .k-band{background:color-mix(in srgb,var(--band) 22%,transparent);border-top:2px dashed var(--band)}
.legend .k-usual{background:color-mix(in srgb,var(--usual) 22%,transparent);border-top:2px dotted var(--usual)}
.legend .k-known{background:var(--seen);height:.25em}
.legend .k-mark{width:.7em;border:1.6px solid var(--seen);border-radius:50%}
.legend .k-said{width:.5em;height:.5em;background:var(--high);transform:rotate(45deg)}
.list{padding:0;margin:0;overflow:hidden}
details{border-top:1px solid var(--line)}
.list>:first-child{border-top:0}
summary{display:grid;grid-template-columns:5.4rem minmax(9rem,12rem) 1fr 14rem 15rem;gap:.1rem .8rem;
  padding:.45rem .8rem;cursor:pointer;align-items:baseline;list-style:none}
summary::-webkit-details-marker{display:none}
summary:hover,details[open]>summary{background:color-mix(in srgb,var(--ink) 5%,transparent)}
summary:focus-visible{outline:2px solid var(--curve);outline-offset:-2px}
summary>*{overflow-wrap:anywhere;min-width:0}
summary b{font-weight:600}
.body{padding:.2rem .9rem 1rem;scroll-margin-top:4rem}
details.plain>summary{display:list-item;list-style:inside disclosure-closed;color:var(--soft)}
details.plain[open]>summary{list-style-type:disclosure-open}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.92em}
td,th{padding:.15rem .9rem .15rem 0;text-align:left;vertical-align:top;border-top:1px solid var(--grid);
  white-space:nowrap}
th{color:var(--soft);font-weight:400;border:0}
td.n,th.n{text-align:right}
td.id,td.long{white-space:normal;overflow-wrap:anywhere;min-width:9rem;max-width:26rem}
.episode{border-left:3px solid var(--c);padding-left:.8rem;margin-top:1rem}
.episode:target,.body:target{background:color-mix(in srgb,var(--medium) 10%,transparent)}
.share{display:inline-block;height:.55em;background:var(--curve);margin-right:.4em;max-width:8rem}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(24rem,100%),1fr));gap:0 1.6rem}
footer{margin-top:2rem;color:var(--soft);font-size:.88em}
footer code{overflow-wrap:anywhere}
@media(max-width:900px){
  summary{grid-template-columns:5.4rem 1fr;}
  summary .at,summary .where,summary .much{grid-column:1/-1}
}
@media(max-width:620px){
  body{padding:1rem .7rem 2rem}
  .lane{grid-template-columns:1fr}
  .lane .name{padding-top:.2rem}
  .plot .odd{display:none}
  .curve{height:200px}
  .facts{grid-template-columns:1fr 1fr}
  .facts .wide{grid-column:1/-1}
  .body{padding:.2rem .7rem 1rem}
}
@media print{
  body{max-width:none}
  details{break-inside:avoid}
}
"""
