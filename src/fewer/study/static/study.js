// Keys, the time an answer took, a draft that outlives a crash of the browser, and no second click.
"use strict";
(() => {
  const form = document.querySelector("form[data-item]");
  if (!form) return;
  const began = Date.now();
  const name = "fewer-draft-" + form.dataset.item;
  const texts = [...form.querySelectorAll("textarea")];
  let draft = {};
  try { draft = JSON.parse(localStorage.getItem(name) || "{}"); } catch { draft = {}; }
  for (const text of texts) {
    if (!text.value && typeof draft[text.name] === "string") text.value = draft[text.name];
    text.addEventListener("input", () => {
      try { localStorage.setItem(name, JSON.stringify(Object.fromEntries(texts.map((t) => [t.name, t.value])))); } catch { /* full */ }
    });
  }
  // with a keyboard one writes at once; a page that scrolled to the field, or a phone's keyboard, would hide the image
  const first = form.querySelector("[data-first]");
  if (first && !matchMedia("(pointer: coarse)").matches) first.focus({ preventScroll: true });
  // a draft goes once the server shows the next question, that is, once the answer is on its disk
  const sent = sessionStorage.getItem("fewer-sent");
  if (sent && sent !== form.dataset.item) { localStorage.removeItem("fewer-draft-" + sent); sessionStorage.removeItem("fewer-sent"); }
  form.addEventListener("submit", () => {
    if (form.elements.seconds) form.elements.seconds.value = ((Date.now() - began) / 1000).toFixed(1);
    sessionStorage.setItem("fewer-sent", form.dataset.item);
    for (const button of form.querySelectorAll("button")) button.disabled = true;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { form.requestSubmit(); return; }
    if (event.target instanceof HTMLTextAreaElement || event.ctrlKey || event.metaKey || event.altKey) return;
    const choice = form.querySelector('input[type=radio][data-key="' + CSS.escape(event.key) + '"]');
    if (choice) { choice.checked = true; choice.focus(); event.preventDefault(); }
  });
})();
