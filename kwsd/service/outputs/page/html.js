// Makes elements. Text from outside goes in as text only, so that no name can become markup.

/** An element with properties (`dataset` and `style` by key) and children. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "dataset" || key === "style") Object.assign(made[key], value);
    else if (key.includes("-")) made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children);
  return made;
}

/** The colour of the n-th of some keywords. */
export const colour = (n, count) => `hsl(${Math.round((360 * n) / count)} 70% 50%)`;
