// The few things that every part of the page does with the document.

/** The element with this id. */
export function element(id) {
  return document.getElementById(id);
}

/**
 * A new element. What others wrote only ever gets into the page as text, through here.
 */
export function make(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** Says below a part of the page what went wrong; an empty text says that nothing is. */
export function showError(part, text) {
  element(`${part}-error`).textContent = text;
}

/**
 * Shows a part, or in its place how to get it, when the host does not serve its actor type.
 */
export function showMissing(part, isMissing) {
  element(`${part}-missing`).hidden = !isMissing;
  element(`${part}-body`).hidden = isMissing;
}
