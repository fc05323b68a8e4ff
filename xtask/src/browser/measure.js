// Runs in the page: opens what is folded, then measures. Gives {scheme, width, texts, least_contrast, defects}.
(() => {
  const defects = [];
  const say = (kind, what) => { if (defects.filter(d => d.startsWith(kind + ": ")).length < 5) defects.push(kind + ": " + what); };
  const name = element => {
    const text = (element.textContent || "").trim().slice(0, 40);
    return `<${element.tagName.toLowerCase()} class="${element.getAttribute("class") || ""}"> ${JSON.stringify(text)}`;
  };
  document.querySelectorAll("details").forEach(details => { details.open = true; });

  if (document.scripts.length > 0) say("script", `${document.scripts.length} of them`);
  if (document.styleSheets.length !== 1 || getComputedStyle(document.body).backgroundColor === "rgba(0, 0, 0, 0)")
    say("style", "the page's own style sheet does not apply");

  const root = document.documentElement, width = root.clientWidth;
  if (root.scrollWidth > width) {
    const wide = [...document.querySelectorAll("body *")].filter(element => element.getBoundingClientRect().right > width + 0.5);
    say("overflow", `${root.scrollWidth} of ${width} px; ${wide.slice(-1).map(name).join()}`);
  }

  const parse = text => { const n = text.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const over = (top, below) => [0, 1, 2].map(at => top[at] * top[3] + below[at] * (1 - top[3])).concat(1);
  const background = element => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reduceRight((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const light = colour => {
    const [r, g, b] = colour.slice(0, 3).map(part => part / 255).map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (text, below) => {
    const [a, b] = [light(over(text, below)), light(below)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  let least = 21, texts = 0;
  const judge = (kind, element, colour) => {
    const ratio = contrast(parse(colour), background(element));
    texts += 1;
    least = Math.min(least, ratio);
    if (ratio < 4.5) say(kind, `${ratio.toFixed(2)} for ${name(element)}`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || ["STYLE", "SCRIPT"].includes(element.tagName)) continue;
    if (Number(getComputedStyle(element).opacity) < 1) say("contrast", `opacity of ${name(element)}`);
    const style = getComputedStyle(element);
    judge("contrast", element, element.ownerSVGElement ? style.fill : style.color);
  }
  for (const element of document.querySelectorAll("body *")) {
    const before = getComputedStyle(element, "::before");
    if (before.content !== "none" && before.content !== "normal" && element.checkVisibility())
      judge("contrast of ::before", element, before.color);
  }

  const boxes = new Map();
  for (const label of document.querySelectorAll("svg text")) {
    const svg = label.ownerSVGElement, view = svg.viewBox.baseVal, box = label.getBBox();
    const inside = box.x >= view.x && box.y >= view.y && box.x + box.width <= view.x + view.width && box.y + box.height <= view.y + view.height;
    if (!inside) say("label outside", name(label));
    const others = boxes.get(svg) || [];
    for (const other of others)
      if (box.x < other.x + other.width && other.x < box.x + box.width && box.y < other.y + other.height && other.y < box.y + box.height)
        say("labels overlap", name(label));
    boxes.set(svg, [...others, box]);
  }

  const scheme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  return { scheme, width, texts, least_contrast: Math.round(least * 100) / 100, defects };
})()
