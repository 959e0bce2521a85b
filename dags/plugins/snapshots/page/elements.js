// elements.js: elements and icons; what people wrote only ever becomes text.

export const the = (id) => document.getElementById(id);

export const fromTemplate = (id) => the(id).content.firstElementChild.cloneNode(true);

export function element(name, { text, title, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  if (text !== undefined) made.textContent = text;
  if (title) made.title = title;
  made.append(...children);
  return made;
}

export function icon(name) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  made.setAttribute("class", "icon");
  made.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#${name}`);
  made.append(use);
  return made;
}

export function closeButton(close) {
  const made = element("button", { type: "button" }, icon("x"));
  made.setAttribute("aria-label", "Close");
  made.addEventListener("click", close);
  return made;
}
